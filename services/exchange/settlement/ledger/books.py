"""What each event posts: balances in memory, and the lines of the batch that is being gathered.

The arithmetic is the engine's: an order's acceptance moves from available to held, a trade takes from held, gives the rest
back and pays both sides, fees go to `$fees`. Amounts are whole smallest units.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from exchange.settlement.ledger import chart
from exchange.settlement.ledger.chart import AVAILABLE, FEES, HELD
from exchange.settlement.ledger.orders import Orders

Place = tuple[int, str, int]
"""(account number, asset, kind)."""

_DEBIT: Final = chart.DEBIT_KINDS


class UnknownThing(Exception):
    """An event names an asset, market or order that no event before it made; the message says which."""


@dataclass(frozen=True, slots=True)
class MarketScale:
    """What never changes of a market, and how many digits its amounts have."""

    symbol: str
    base: str
    quote: str
    base_decimals: int
    quote_decimals: int


@dataclass(slots=True)
class Batch:
    """What is to be written at once. `lines` and `trades` are rows in COPY's text form; `markets` are (base, quote, mode,
    sequence) by symbol.
    """

    lines: list[str] = field(default_factory=list)
    trades: list[str] = field(default_factory=list)
    accounts: dict[str, int] = field(default_factory=dict)
    assets: dict[str, int] = field(default_factory=dict)
    markets: dict[str, tuple[str, str, str, int]] = field(default_factory=dict)
    balances: set[Place] = field(default_factory=set)

    @property
    def rows(self) -> int:
        """How many lines and trades."""
        return len(self.lines) + len(self.trades)


class Books:
    """Balances of all accounts, open orders, scales; `batch` holds what was not written yet."""

    def __init__(self) -> None:
        self.accounts: dict[str, int] = {}
        self.balances: dict[Place, int] = {}
        self.assets: dict[str, int] = {}
        self.markets: dict[str, MarketScale] = {}
        self.orders = Orders()
        self.posting_id = 0
        self.trade_count = 0
        self.batch = Batch()

    def take_batch(self) -> Batch:
        """What was gathered since; an empty one begins."""
        taken, self.batch = self.batch, Batch()
        return taken

    # --- Definitions ------------------------------------------------------------------------------------------------

    def asset(self, code: str) -> int:
        """Digits of an asset. Raises UnknownThing."""
        decimals = self.assets.get(code)
        if decimals is None:
            raise UnknownThing(f"asset {code}")
        return decimals

    def market(self, symbol: str) -> MarketScale:
        """A market's scales. Raises UnknownThing."""
        found = self.markets.get(symbol)
        if found is None:
            raise UnknownThing(f"market {symbol}")
        return found

    def add_asset(self, code: str, decimals: int) -> None:
        """A new asset."""
        self.assets[code] = self.batch.assets[code] = decimals

    def set_market(self, symbol: str, base: str, quote: str, mode: str, sequence: int) -> None:
        """A market was made or changed."""
        self.markets[symbol] = MarketScale(symbol, base, quote, self.asset(base), self.asset(quote))
        self.batch.markets[symbol] = (base, quote, mode, sequence)

    # --- Postings ---------------------------------------------------------------------------------------------------

    def hold(self, sequence: int, time_ns: int, account: str, asset: str, amount: int, reference: str) -> None:
        """From available to held; a negative amount goes back."""
        if amount == 0:
            return
        holder = self._account(account)
        cause = chart.HOLD if amount > 0 else chart.RELEASE
        kind = chart.available_kind(account)
        self._post(sequence, time_ns, holder, asset, kind, cause, -amount, reference)
        self._post(sequence, time_ns, holder, asset, HELD, cause, amount, reference)

    def trade(
        self,
        sequence: int,
        time_ns: int,
        trade_id: str,
        market: MarketScale,
        buyer: str,
        seller: str,
        base_amount: int,
        notional: int,
        released: int,
        buyer_fee: int,
        seller_fee: int,
    ) -> None:
        """Base against quote. `released` leaves the buyer's held quote; what notional and fee leave of it goes back."""
        buys, sells, quote, base = self._account(buyer), self._account(seller), market.quote, market.base
        post = self._post
        post(sequence, time_ns, buys, quote, HELD, chart.TRADE, -released, trade_id)
        if released != notional:
            post(sequence, time_ns, buys, quote, AVAILABLE, chart.TRADE, released - notional, trade_id)
        post(sequence, time_ns, buys, base, AVAILABLE, chart.TRADE, base_amount, trade_id)
        post(sequence, time_ns, sells, base, HELD, chart.TRADE, -base_amount, trade_id)
        post(sequence, time_ns, sells, quote, AVAILABLE, chart.TRADE, notional, trade_id)
        if buyer_fee:
            post(sequence, time_ns, buys, quote, AVAILABLE, chart.FEE, -buyer_fee, trade_id)
        if seller_fee:
            post(sequence, time_ns, sells, quote, AVAILABLE, chart.FEE, -seller_fee, trade_id)
        if buyer_fee or seller_fee:
            fees = self._account(chart.FEE_ACCOUNT)
            post(sequence, time_ns, fees, quote, FEES, chart.FEE, buyer_fee + seller_fee, trade_id)

    def deposit(self, sequence: int, time_ns: int, account: str, asset: str, amount: int, reference: str) -> None:
        """Money came in."""
        holder, kind = self._account(account), chart.available_kind(account)
        self._post(sequence, time_ns, holder, asset, kind, chart.DEPOSIT, amount, reference)
        self._custody(sequence, time_ns, asset, chart.DEPOSIT, -amount, reference)

    def withdrawal(self, sequence: int, time_ns: int, account: str, asset: str, amount: int, reference: str) -> None:
        """Held money left."""
        holder = self._account(account)
        self._post(sequence, time_ns, holder, asset, HELD, chart.WITHDRAWAL, -amount, reference)
        self._custody(sequence, time_ns, asset, chart.WITHDRAWAL, amount, reference)

    def transfer(
        self, sequence: int, time_ns: int, account: str, to_account: str, asset: str, amount: int, reference: str
    ) -> None:
        """Available money of one account became another's."""
        giver, taker = self._account(account), self._account(to_account)
        giver_kind, taker_kind = chart.available_kind(account), chart.available_kind(to_account)
        self._post(sequence, time_ns, giver, asset, giver_kind, chart.TRANSFER, -amount, reference)
        self._post(sequence, time_ns, taker, asset, taker_kind, chart.TRANSFER, amount, reference)

    def loss(self, loss_id: int, time_ns: int, custody_account: str, asset: str, amount: int, reference: str) -> None:
        """Custody is less than it was, and no user pays: an asset is exchanged for a claim in suspense."""
        custody, losses = self._account(custody_account), self._account(chart.LOSSES)
        self._post(-loss_id, time_ns, custody, asset, chart.CUSTODY, chart.LOSS, amount, reference)
        self._post(-loss_id, time_ns, losses, asset, chart.SUSPENSE, chart.LOSS, -amount, reference)

    def _custody(self, sequence: int, time_ns: int, asset: str, cause: int, amount: int, reference: str) -> None:
        where = self._account(chart.custody_of(reference))
        self._post(sequence, time_ns, where, asset, chart.CUSTODY, cause, amount, reference)

    def _post(
        self,
        transaction: int,
        time_ns: int,
        account: int,
        asset: str,
        kind: int,
        cause: int,
        amount: int,
        reference: str,
    ) -> None:
        """One line. `amount` is a credit, negative for a debit."""
        place = (account, asset, kind)
        balance = self.balances.get(place, 0) + (-amount if kind in _DEBIT else amount)
        self.balances[place] = balance
        self.posting_id = number = self.posting_id + 1
        batch = self.batch
        batch.balances.add(place)
        batch.lines.append(
            f"{number}\t{transaction}\t{account}\t{asset}\t{kind}\t{cause}\t{amount}\t{balance}\t{copied(reference)}\t{time_ns}\n"
        )

    def _account(self, name: str) -> int:
        number = self.accounts.get(name)
        if number is None:
            number = self.accounts[name] = self.batch.accounts[name] = len(self.accounts) + 1
        return number


def copied(text: str) -> str:
    """Text as COPY takes it; ids of the contract are printable, so only the backslash means something."""
    return text.replace("\\", "\\\\") if "\\" in text else text

"""What the engine's state is made of. Plain classes: the rules live in the modules that change them.

All have slots. Of what exists by the thousand it makes one block of memory instead of two, and most of what a command
costs is memory that is not in the processor's caches; of what exists once it spares a dictionary at each use, which
Python falls back to for an object of more than thirty attributes.
"""

from __future__ import annotations

from collections import deque

from exchange.trading.core.commands import Command
from exchange.trading.core.constants import (
    BUY,
    CANCELLED,
    FEE_ACCOUNT,
    FILLED,
    OPEN,
    PARTIAL,
    PENDING,
    SESSION_RESULT_WINDOW,
    Boxed,
)
from exchange.trading.core.events import Result


class Asset:
    """Something that accounts hold. `supply` is what all accounts together hold: deposits less withdrawals."""

    __slots__ = ("code", "decimals", "index", "supply")

    def __init__(self, index: int, code: str, decimals: int) -> None:
        self.supply = 0
        self.index = index
        self.code = code
        self.decimals = decimals


class Balance:
    """Smallest units of one asset of one account."""

    __slots__ = ("available", "held")

    def __init__(self) -> None:
        self.available = 0
        self.held = 0


class Session:
    """An order session: its settings, and results for repeated command numbers."""

    __slots__ = ("cancel_on_disconnect", "dead_man_ms", "grace_ms", "last_number", "name", "results")

    def __init__(self, name: str, grace_ms: int, dead_man_ms: int, *, cancel_on_disconnect: bool) -> None:
        self.name = name
        self.cancel_on_disconnect = cancel_on_disconnect
        self.grace_ms = grace_ms
        self.dead_man_ms = dead_man_ms
        self.last_number = 0
        self.results: deque[tuple[int, Result]] = deque(maxlen=SESSION_RESULT_WINDOW)


class Account:
    """One account: its money, open orders in order of acceptance, and what it asked before."""

    __slots__ = (
        "balances",
        "finished",
        "holds",
        "max_open_orders",
        "name",
        "open_by_key",
        "orders",
        "placed",
        "requests",
        "sessions",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.max_open_orders = -1  # -1: the engine's default; 0: no limit
        self.balances: dict[int, Balance] = {}
        self.orders: dict[int, Order] = {}
        self.open_by_key: dict[str, int] = {}  # how many of `orders` each API key has placed; see keys.py
        self.finished: deque[Order] = deque()
        self.placed: dict[str, Result] = {}
        self.requests: dict[str, Result] = {}
        self.holds: dict[str, tuple[int, int]] = {}
        self.sessions: dict[str, Session] = {}

    def balance(self, asset: int) -> Balance:
        """The balance of an asset, made at its first use."""
        found = self.balances.get(asset)
        if found is None:
            found = self.balances[asset] = Balance()
        return found


class Level:
    """All orders of one side at one price, first come first. Holds no reference once it is empty."""

    __slots__ = ("count", "head", "lots", "price", "tail")

    def __init__(self, price: Boxed) -> None:
        self.price = price
        self.head: Order | None = None
        self.tail: Order | None = None
        self.lots = 0
        self.count = 0


class Order:
    """One order. `command` is the PLACE command that made it: what never changes is read there. `balance` is the one of
    its account that it is paid from: quote units for BUY, base units for SELL.
    """

    __slots__ = (
        "account",
        "balance",
        "cancel_reason",
        "command",
        "created_ns",
        "fee_ahead",
        "fee_paid",
        "held",
        "level",
        "lots_cancelled",
        "lots_filled",
        "lots_open",
        "maker_ppm",
        "market",
        "next",
        "notional",
        "order_id",
        "prev",
        "price",
        "side",
        "taker_ppm",
        "triggered",
        "updated_ns",
        "updated_sequence",
        "waiting",
    )

    def __init__(
        self,
        order_id: Boxed,
        account: Account,
        balance: Balance,
        market: Market,
        side: int,
        price: Boxed,
        lots: int,
        held: int,
        created_ns: int,
        command: Command,
    ) -> None:
        self.order_id = order_id
        self.account = account
        self.balance = balance
        self.market = market
        self.side = side
        self.price = price
        self.lots_open = lots
        self.held = held  # still set aside of `balance`
        self.created_ns = created_ns
        self.command = command
        self.maker_ppm = market.maker_ppm
        self.taker_ppm = market.taker_ppm
        self.lots_filled = 0
        self.notional = 0  # quote units of the fills
        self.fee_paid = 0
        self.level: Level | None = None
        self.prev: Order | None = None
        self.next: Order | None = None
        self.lots_cancelled = 0  # what was open when it was cancelled
        self.fee_ahead = 0  # millionths of a quote unit by which the fee, rounded up, is ahead of the exact one
        self.cancel_reason = 0
        self.triggered = False
        self.waiting = False  # triggered, and not matched yet: in State.triggered
        self.updated_ns = 0  # 0: never since its acceptance
        self.updated_sequence = 0

    @property
    def status(self) -> int:
        """PENDING, PARTIAL, FILLED or CANCELLED."""
        if self.lots_open != 0:
            return PENDING if self.lots_filled == 0 else PARTIAL
        return FILLED if self.cancel_reason == 0 else CANCELLED


class BookSide:
    """One side of a book. `keys` is sorted with the best price last: bids by price, asks by minus the price, so that
    "may trade" is one comparison for both.
    """

    __slots__ = ("keys", "levels", "side", "sign")

    def __init__(self, side: int) -> None:
        self.side = side
        self.sign = 1 if side == BUY else -1
        self.keys: list[int] = []
        self.levels: dict[int, Level] = {}  # by price

    @property
    def orders(self) -> int:
        """How many orders rest here; walks the levels."""
        return sum([level.count for level in self.levels.values()])

    @property
    def lots(self) -> int:
        """How many lots rest here; walks the levels."""
        return sum([level.lots for level in self.levels.values()])


class Market:
    """One market: its rules, its book, its sleeping stop orders."""

    __slots__ = (
        "asks",
        "band_high",
        "band_low",
        "band_ppm",
        "base",
        "base_per_lot",
        "bids",
        "default_stp",
        "hold_ppm",
        "index",
        "last_price",
        "maker_ppm",
        "max_lots",
        "min_lots",
        "min_notional",
        "mode",
        "most_lots",
        "price_decimals",
        "protection_ppm",
        "quote",
        "quote_per_tick_lot",
        "reference_price",
        "stop_buys",
        "stop_sells",
        "symbol",
        "taker_ppm",
        "tick",
    )

    def __init__(
        self, index: int, symbol: str, base: int, quote: int, base_per_lot: int, quote_per_tick_lot: int
    ) -> None:
        self.index = index
        self.symbol = symbol
        self.base = base
        self.quote = quote
        self.base_per_lot = base_per_lot
        self.quote_per_tick_lot = quote_per_tick_lot
        self.tick = 0
        self.price_decimals = 0
        self.mode = OPEN
        self.last_price = 0
        self.min_lots = 1
        self.max_lots = 0
        self.most_lots = 0  # that no bound forbids: the market's and the engine's
        self.min_notional = 0
        self.maker_ppm = 0
        self.taker_ppm = 0
        self.hold_ppm = 0  # the dearer of the two
        self.band_ppm = 0
        self.protection_ppm = 0
        self.default_stp = 0
        self.reference_price = 0
        self.band_low = 0  # lowest and highest price allowed now: see admission.set_band
        self.band_high = 0
        self.bids = BookSide(BUY)
        self.asks = BookSide(3 - BUY)
        # (trigger price, order id) of buys, (minus trigger price, order id) of sells: the next to wake stands first.
        self.stop_buys: list[tuple[int, int]] = []
        self.stop_sells: list[tuple[int, int]] = []


class State:
    """All that the engine knows."""

    __slots__ = (
        "accept_new_orders",
        "accounts",
        "asset_index",
        "assets",
        "circuit_breaker",
        "default_max_open_orders",
        "entry",
        "fees",
        "finished",
        "forgotten_ns",
        "maintenance",
        "market_index",
        "markets",
        "max_finished_orders",
        "max_id_age_ns",
        "max_ids",
        "orders",
        "remembered",
        "rules_version",
        "sequence",
        "stirred",
        "time_ns",
        "timers",
        "timers_live",
        "traded",
        "trades",
        "triggered",
    )

    def __init__(self) -> None:
        self.sequence = 0
        self.time_ns = 0
        self.rules_version = 1
        self.accept_new_orders = True
        self.maintenance = False
        self.circuit_breaker = False
        self.max_ids = 1_000_000
        self.max_id_age_ns = 86_400_000_000_000
        self.max_finished_orders = 200_000
        self.default_max_open_orders = 10_000
        self.forgotten_ns = 0  # ids of requests up to this time may be forgotten
        self.timers_live = 0  # open GTD orders
        self.trades = 0  # made by the present command
        self.assets: list[Asset] = []
        self.asset_index: dict[str, int] = {}
        self.markets: list[Market] = []
        self.entry: dict[int, Market] = {}  # the markets that take new orders now; see admission.set_entry
        self.market_index: dict[str, int] = {}
        self.fees = Account(FEE_ACCOUNT)
        self.accounts: dict[str, Account] = {FEE_ACCOUNT: self.fees}
        self.orders: dict[int, Order] = {}
        self.finished: deque[Order] = deque()
        self.remembered: deque[Result] = deque()  # those under an id, the next to forget first: see memory.filed
        self.timers: list[tuple[int, int]] = []
        self.triggered: deque[Order] = deque()
        self.traded: Market | None = None  # where the present command has traded
        self.stirred = False  # the command has traded, or woken stop orders may wait: the engine looks behind it

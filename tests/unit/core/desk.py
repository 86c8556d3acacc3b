"""A trading desk for tests: an engine with one market and rich accounts, spoken to as a trader would.

Orders:    "ann buy 5 @ 100"              limit, GTC; add ioc, fok, gtd=TIME, post-only, stp=none|newest|oldest|both
           "ann buy 5 market"             market; "ann buy 5 market @ 103" with its protection price
           "ann sell 5 stop 98"           stop; "ann sell 5 @ 97 stop 98" stop-limit
           "... as x"                     remembers the order under a label, and gives it that client order id
Changes:   "ann cancel x", "ann reduce x by 2", "ann replace x 5 @ 101"
Books:     one line a level, best ask lowest, best bid highest: "ask 101  bob:3 cy:2", oldest order first
Events:    one line each, as `told` writes them
"""

from __future__ import annotations

from typing import Any

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import events as ev
from exchange.trading.core import reasons
from exchange.trading.core.book import orders_in_priority
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import Event, Result
from exchange.trading.core.invariants import check_market, check_money
from exchange.trading.core.model import Balance, BookSide, Market, Order

REASONS = {value: name for name, value in vars(reasons).items() if name.isupper() and isinstance(value, int)}
CANCELS = {
    c.CANCEL_REQUESTED: "requested",
    c.CANCEL_REMAINDER: "remainder",
    c.CANCEL_EXPIRED: "expired",
    c.CANCEL_SELF_TRADE: "self-trade",
    c.CANCEL_OPERATOR: "operator",
    c.CANCEL_DISCONNECTED: "disconnected",
    c.CANCEL_REDUCED: "reduced",
}
SIDES = {c.BUY: "buy", c.SELL: "sell"}
STPS = {"none": 1, "newest": 2, "oldest": 3, "both": 4}
TIFS = {"ioc": c.IOC, "fok": c.FOK}
TRADERS = ("ann", "bob", "cy", "dee")
BASE, QUOTE = 0, 1
RICH = 10**9


def definition(**changes: Any) -> tuple[Any, ...]:
    """A market of base units and quote units without decimals: one lot at one tick is one quote unit."""
    rules = {
        "symbol": "BASEQUOTE",
        "base": BASE,
        "quote": QUOTE,
        "tick": 1,
        "price_decimals": 0,
        "lot": 1,
        "min_lots": 1,
        "max_lots": 0,
        "min_notional": 0,
        "maker_ppm": 0,
        "taker_ppm": 0,
        "band_ppm": 0,
        "protection_ppm": 100_000,
        "stp": c.STP_NONE,
        "reference": 0,
    }
    assert changes.keys() <= rules.keys(), changes
    return tuple((rules | changes).values())


class Desk:
    """One engine and what was said at it; invariants are checked after each command."""

    def __init__(self, rich: int = RICH, **rules: Any) -> None:
        self.engine = Engine()
        self.time = 0
        self.labels: dict[str, int] = {}
        self.events: list[Event] = []
        self.send(cmd.create_asset("operator", "BASE", 0))
        self.send(cmd.create_asset("operator", "QUOTE", 0))
        self.send(cmd.create_market("operator", definition(**rules)))
        for trader in TRADERS if rich else ():
            self.credit(trader, BASE, rich)
            self.credit(trader, QUOTE, rich)

    # --- saying ---

    def send(self, command: Command) -> Result:
        """Recall or apply a command, as the sequencer does."""
        known = self.engine.recall(command)
        if known is not None:
            self.events = []
            return known
        self.events = self.engine.apply(self.engine.state.sequence + 1, self.time, command)
        self.check()
        return self.engine.result

    def check(self) -> None:
        findings = check_money(self.engine.state)
        for market in self.engine.state.markets:
            findings += check_market(self.engine.state, market)
        assert [finding for finding in findings if not finding[1]] == []

    def credit(self, account: str, asset: int, amount: int) -> Result:
        return self.send(cmd.credit(account, asset, amount, request_id=f"credit-{self.engine.state.sequence}"))

    def say(self, text: str, **more: Any) -> Result:
        """Send what a line says."""
        return self.send(self.command(text, **more))

    def command(self, text: str, **more: Any) -> Command:
        words = text.split()
        if words[1] == "cancel":
            return cmd.cancel(words[0], order_id=self.labels[words[2]], **more)
        if words[1] == "reduce":
            return cmd.reduce(words[0], int(words[4]), order_id=self.labels[words[2]], **more)
        if words[1] == "replace":
            return cmd.replace(words[0], int(words[3]), int(words[5]), order_id=self.labels[words[2]], **more)
        return self._order(words, more)

    def _order(self, words: list[str], more: dict[str, Any]) -> Command:
        account, side, lots, *rest = words
        options: dict[str, Any] = {"tif": c.GTC} | more
        price = int(rest[rest.index("@") + 1]) if "@" in rest else 0
        kind = c.LIMIT if "@" in rest else c.MARKET
        if "market" in rest:
            kind, options["tif"] = c.MARKET, c.IOC
        if "stop" in rest:
            options["stop"] = int(rest[rest.index("stop") + 1])
            kind = c.STOP_LIMIT if "@" in rest else c.STOP
            options["tif"] = c.GTC if "@" in rest else c.IOC
        for word in rest:
            name, _, value = word.partition("=")
            if word in TIFS:
                options["tif"] = TIFS[word]
            elif name == "gtd":
                options |= {"tif": c.GTD, "expire_ns": int(value)}
            elif name == "stp":
                options["stp"] = STPS[value]
            elif word == "post-only":
                options["post_only"] = True
        if "as" in rest:
            label = rest[rest.index("as") + 1]
            options.setdefault("client_order_id", label)
            self.labels[label] = self.engine.state.sequence + 1
        return cmd.place(account, 0, c.BUY if side == "buy" else c.SELL, kind, int(lots), price, **options)

    def given(self, book: str) -> None:
        """Fill the empty book level by level."""
        for line in book.strip().splitlines():
            side, price, *queue = line.split()
            for entry in queue:
                account, lots = entry.split(":")
                result = self.say(f"{account} {'buy' if side == 'bid' else 'sell'} {lots} @ {price}")
                assert result[ev.R_OPEN] == int(lots), f"{line} does not rest"

    def last_trade(self, price: int) -> None:
        """Make a trade at this price, which leaves nothing behind in an empty book."""
        assert self.say(f"cy sell 1 @ {price}")[ev.R_STATUS] == c.PENDING
        assert self.say(f"dee buy 1 @ {price}")[ev.R_STATUS] == c.FILLED

    # --- looking ---

    @property
    def market(self) -> Market:
        return self.engine.state.markets[0]

    def order(self, label: str) -> Order:
        return self.engine.state.orders[self.labels[label]]

    def balance(self, account: str, asset: int) -> tuple[int, int]:
        """(available, held)"""
        balance = self.engine.state.accounts[account].balances.get(asset, Balance())
        return (balance.available, balance.held)

    def book(self) -> str:
        """The ladder, one line a level."""
        asks = self._levels("ask", self.market.asks)
        return "\n".join([*reversed(asks), *self._levels("bid", self.market.bids)])

    def _levels(self, name: str, side: BookSide) -> list[str]:
        lines: dict[int, str] = {}
        for order in orders_in_priority(side):
            line = lines.get(order.price, f"{name} {order.price} ")
            lines[order.price] = f"{line} {order.account.name}:{order.lots_open}"
        return list(lines.values())

    def sleeping(self) -> list[str]:
        """Labels of the stop orders that sleep, the next to wake first, buys before sells."""
        names = {number: label for label, number in self.labels.items()}
        return [names[number] for _, number in self.market.stop_buys + self.market.stop_sells]

    def told(self) -> str:
        """The events of the last command."""
        return "\n".join(self.told_one(event) for event in self.events)

    def told_one(self, event: Event) -> str:
        kind = event[ev.E_KIND]
        if kind == ev.TRADE:
            text = (
                f"trade {event[ev.T_LOTS]} @ {event[ev.T_PRICE]} {event[ev.T_MAKER_ACCOUNT]} -> "
                f"{event[ev.T_TAKER_ACCOUNT]}"
            )
            fees = (event[ev.T_MAKER_FEE], event[ev.T_TAKER_FEE])
            return text + (f" fees {fees[0]} {fees[1]}" if any(fees) else "")
        if kind == ev.ORDER_REJECTED:
            return f"rejected {REASONS[event[ev.OR_REASON]]}"
        if kind == ev.COMMAND_REJECTED:
            return f"refused {REASONS[event[ev.CR_REASON]]}"
        if kind not in ORDER_EVENTS:
            return f"event {kind}"
        account, side, price = event[ev.O_ACCOUNT], SIDES[event[ev.O_SIDE]], event[ev.O_PRICE]
        if kind == ev.ORDER_ACCEPTED:
            return f"accepted {account} {side} @ {price} rests {event[ev.OA_RESTING]}"
        if kind == ev.ORDER_TRIGGERED:
            return f"triggered {account} {side} @ {price} rests {event[ev.OT_RESTING]}"
        if kind == ev.ORDER_REDUCED:
            return f"reduced {account} {side} @ {price} to {event[ev.OD_OPEN]}"
        if kind == ev.ORDER_REPLACED:
            return f"replaced {account} {side} @ {price} rests {event[ev.OP_RESTING]}"
        return f"cancelled {account} {side} {event[ev.OC_LOTS]} {CANCELS[event[ev.OC_REASON]]}"


ORDER_EVENTS = (ev.ORDER_ACCEPTED, ev.ORDER_TRIGGERED, ev.ORDER_REDUCED, ev.ORDER_REPLACED, ev.ORDER_CANCELLED)


def lines(text: str) -> str:
    """A table as it was meant: without indentation, blank lines and runs of blanks."""
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines() if line.strip())


def reason_of(result: Result) -> str:
    """Name of a result's reason; DONE if there was none."""
    return REASONS[result[ev.R_REASON]]

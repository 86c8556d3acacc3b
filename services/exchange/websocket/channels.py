"""What can be subscribed to, and with which parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exchange.domain.symbols import SYMBOL, canonical_symbol
from exchange.runtime.errors import ErrorReason, ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEPTHS: Final = (0, 10, 50, 200)
INTERVALS_MS: Final = (0, 100, 250, 1000)
INTERVALS: Final = ("1s", "1m", "5m", "15m", "1h", "4h", "1d")
DEFAULT_DEPTH: Final = 50
DEFAULT_INTERVAL: Final = "1m"

BOOK, BOOK_ORDERS, TRADES, TICKER, CANDLES = "book", "book-orders", "trades", "ticker", "candles"
BEST_PRICES, STATUS, ORDERS, BALANCES = "best-prices", "status", "orders", "balances"


@dataclass(frozen=True, slots=True)
class Channel:
    """One of them. `required` and `optional` are its parameters; `private`: of the account that asks.

    `latest`: only the newest value counts, so a client that reads slowly gets it alone.
    """

    name: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    private: bool = False
    latest: bool = False


CHANNELS: Final = {
    channel.name: channel
    for channel in (
        Channel(BOOK, ("symbol",), ("depth", "interval_ms")),
        Channel(BOOK_ORDERS, ("symbol",)),
        Channel(TRADES, ("symbol",)),
        Channel(TICKER, (), ("symbol",), latest=True),
        Channel(CANDLES, ("symbol",), ("interval",), latest=True),
        Channel(BEST_PRICES, (), ("symbol",), latest=True),
        Channel(STATUS, (), ("symbol",), latest=True),
        Channel(ORDERS, private=True),
        Channel(BALANCES, private=True),
    )
}


@dataclass(frozen=True, slots=True)
class Key:
    """One channel with its parameters; equal keys show the same. `symbol` is in its one form, empty for all."""

    channel: str
    symbol: str = ""
    depth: int = 0
    interval_ms: int = 0
    interval: str = ""

    @property
    def private(self) -> bool:
        """Whether it is the caller's own."""
        return CHANNELS[self.channel].private

    @property
    def conflated(self) -> bool:
        """Whether a client that reads slowly skips what is outdated, rather than to be closed."""
        return CHANNELS[self.channel].latest or self.interval_ms > 0

    @property
    def header(self) -> dict[str, Any]:
        """Channel and parameters as every message of it says them."""
        channel = CHANNELS[self.channel]
        names = (*channel.required, *channel.optional)
        found = {name: getattr(self, name) for name in names}
        if not self.symbol:
            found.pop("symbol", None)
        return {"channel": self.channel, **found}


def read_key(fields: Mapping[str, Any]) -> Key:
    """The channel that a request means. Raises ServiceError, UNKNOWN_CHANNEL among others."""
    name = fields.get("channel", "")
    if not name:
        raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": "channel"})
    channel = CHANNELS.get(name) if isinstance(name, str) else None
    if channel is None:
        raise ServiceError(
            ErrorReason.UNKNOWN_CHANNEL, f"no such channel; there are {', '.join(CHANNELS)}", metadata={"channel": name}
        )
    for field in channel.required:
        if not fields.get(field):
            raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": field})
    known = {"channel", "resume_token", *channel.required, *channel.optional}
    for field in fields:
        if field not in known:
            raise ServiceError(
                ErrorReason.FIELD_NOT_ALLOWED, f"the channel {name} has no such parameter", metadata={"field": field}
            )
    takes = channel.optional
    return Key(
        channel=channel.name,
        symbol=_symbol(fields["symbol"]) if "symbol" in fields else "",
        depth=_one_of(fields, "depth", DEPTHS, DEFAULT_DEPTH) if "depth" in takes else 0,
        interval_ms=_one_of(fields, "interval_ms", INTERVALS_MS, 0) if "interval_ms" in takes else 0,
        interval=_one_of(fields, "interval", INTERVALS, DEFAULT_INTERVAL) if "interval" in takes else "",
    )


def _symbol(value: Any) -> str:
    if not isinstance(value, str):
        raise ServiceError(
            ErrorReason.INVALID_FIELD, "symbol must be a text", metadata={"field": "symbol", "value": value}
        )
    symbol = canonical_symbol(value)
    if SYMBOL.fullmatch(symbol) is None:
        raise ServiceError(ErrorReason.UNKNOWN_SYMBOL, metadata={"symbol": value})
    return symbol


def _one_of(fields: Mapping[str, Any], field: str, choices: tuple[Any, ...], default: Any) -> Any:
    value = fields.get(field, default)
    # By type too: true is no 1, and 10.0 no 10.
    if type(value) is not type(default) or value not in choices:
        allowed = ", ".join(str(choice) for choice in choices)
        raise ServiceError(
            ErrorReason.INVALID_FIELD, f"{field} must be one of {allowed}", metadata={"field": field, "value": value}
        )
    return value

"""The Python SDK of PinCEX: an asynchronous client over the public contract. See `docs/SDK.md`.

What is named here is loaded when it is first asked for: commands that run an exchange need none of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pincex_client import requests
    from pincex_client.admin import AdminClient
    from pincex_client.book import BookStream, LiveBook, checksum_of
    from pincex_client.client import ExchangeClient
    from pincex_client.errors import (
        AlreadyExists,
        DataLoss,
        ExchangeError,
        InternalError,
        InvalidRequest,
        NotFound,
        OutcomeUnknown,
        Overloaded,
        PermissionDenied,
        Rejected,
        SessionClosed,
        TradingSuspended,
        Unauthenticated,
        Unavailable,
    )
    from pincex_client.feeds import BalancesChanged, BalanceStream, OrderEventStream, OrdersSnapshot, TradeStream
    from pincex_client.market_data import CandleStream, MarketData, TickerStream
    from pincex_client.models import Balance, Book, Candle, Fill, Health, Level, Market, Order, Ticker, Trade
    from pincex_client.results import CommandResult
    from pincex_client.session import OrderSession, SessionOptions
    from pincex_client.transport import RetryPolicy, Tls
    from pincex_client.venue_feeds import ReferencePrice

__all__ = [
    "AdminClient",
    "AlreadyExists",
    "Balance",
    "BalanceStream",
    "BalancesChanged",
    "Book",
    "BookStream",
    "Candle",
    "CandleStream",
    "CommandResult",
    "DataLoss",
    "ExchangeClient",
    "ExchangeError",
    "Fill",
    "Health",
    "InternalError",
    "InvalidRequest",
    "Level",
    "LiveBook",
    "Market",
    "MarketData",
    "NotFound",
    "Order",
    "OrderEventStream",
    "OrderSession",
    "OrdersSnapshot",
    "OutcomeUnknown",
    "Overloaded",
    "PermissionDenied",
    "ReferencePrice",
    "Rejected",
    "RetryPolicy",
    "SessionClosed",
    "SessionOptions",
    "Ticker",
    "TickerStream",
    "Tls",
    "Trade",
    "TradeStream",
    "TradingSuspended",
    "Unauthenticated",
    "Unavailable",
    "checksum_of",
    "requests",
]

_MODULES = {
    "admin": ("AdminClient",),
    "book": ("BookStream", "LiveBook", "checksum_of"),
    "client": ("ExchangeClient",),
    "errors": (
        "AlreadyExists",
        "DataLoss",
        "ExchangeError",
        "InternalError",
        "InvalidRequest",
        "NotFound",
        "OutcomeUnknown",
        "Overloaded",
        "PermissionDenied",
        "Rejected",
        "SessionClosed",
        "TradingSuspended",
        "Unauthenticated",
        "Unavailable",
    ),
    "feeds": ("BalancesChanged", "BalanceStream", "OrderEventStream", "OrdersSnapshot", "TradeStream"),
    "market_data": ("CandleStream", "MarketData", "TickerStream"),
    "models": ("Balance", "Book", "Candle", "Fill", "Health", "Level", "Market", "Order", "Ticker", "Trade"),
    "results": ("CommandResult",),
    "session": ("OrderSession", "SessionOptions"),
    "transport": ("RetryPolicy", "Tls"),
    "venue_feeds": ("ReferencePrice",),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:
    # Not for type checkers: to them every name would then be there, of any type.

    def __getattr__(name: str) -> Any:
        if name == "requests":
            return importlib.import_module("pincex_client.requests")
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"pincex_client.{_WHERE[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

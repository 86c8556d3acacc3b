"""The Python SDK of PinCEX: an asynchronous client over the public contract. See `docs/SDK.md`."""

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

"""The public edge, as a client of it: channels become streams, operations become calls, with the client's credentials."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf import json_format

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.internal_client import error_of
from exchange.websocket import channels, requests
from exchange.websocket.credentials import Credentials
from exchange.websocket.service.updates import as_json, update_of
from pincex.marketdata.v1 import market_data_service_pb2 as md
from pincex.marketdata.v1 import market_data_service_pb2_grpc as md_grpc
from pincex.trading.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    market_service_pb2,
    market_service_pb2_grpc,
    order_commands_pb2,
    order_service_pb2,
    order_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from google.protobuf.message import Message

    from exchange.websocket.channels import Key
    from exchange.websocket.updates import Source, Update

# The edge gives up after 10 s, and says so; this is for an edge that says nothing.
CALL_S: Final = 12.0
# Envoy takes 1,024 on one connection; calls need room too.
STREAMS_PER_CONNECTION: Final = 500
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Connections of one process to one address would else be one.
    ("grpc.use_local_subchannel_pool", 1),
)
_NOBODY: Final = Credentials()
_ORDERS: Final[dict[str, tuple[str, type[Message]]]] = {
    requests.PLACE: ("PlaceOrder", order_commands_pb2.PlaceOrderRequest),
    requests.CANCEL: ("CancelOrder", order_commands_pb2.CancelOrderRequest),
    requests.REPLACE: ("ReplaceOrder", order_commands_pb2.ReplaceOrderRequest),
    requests.REDUCE: ("ReduceOrder", order_commands_pb2.ReduceOrderRequest),
    requests.CANCEL_ALL: ("CancelAllOrders", order_commands_pb2.CancelAllOrdersRequest),
}
# Statuses without a reason of ours: of gRPC itself, or of a proxy.
_REASONS: Final = {
    grpc.StatusCode.CANCELLED: ErrorReason.UPSTREAM_UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED: ErrorReason.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: ErrorReason.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED: ErrorReason.UNKNOWN_PATH,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorReason.OVERLOADED,
}


class EdgeExchange:
    """The exchange behind an edge's address. Make it in the running event loop."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._calls = self._open()
        self._streams: list[_Connection] = []

    @property
    def streams(self) -> int:
        """Streams that are open."""
        return sum(connection.streams for connection in self._streams)

    def source(self, key: Key) -> Source:
        """See `session.Exchange`: anybody may have it, so it is asked for as nobody."""
        return _Stream(self, key, lambda: _NOBODY)

    def own_source(self, key: Key, credentials: Callable[[], Credentials]) -> Source:
        """See `session.Exchange`."""
        return _Stream(self, key, credentials)

    async def account(self, credentials: Credentials) -> str:
        """See `session.Exchange`. A token without the scope `read` is good too; whose it is stands in it."""
        stub = account_service_pb2_grpc.AccountServiceStub(self._calls)
        try:
            with _refusals():
                call: Any = stub.GetLimits(
                    account_service_pb2.GetLimitsRequest(),
                    metadata=credentials.metadata,
                    timeout=CALL_S,
                )
                found = await call
        except ServiceError as error:
            if error.reason != ErrorReason.SCOPE_MISSING:
                raise
            return credentials.account_of_token
        return str(found.account)

    async def order(self, op: str, body: dict[str, Any], credentials: Credentials) -> dict[str, Any]:
        """See `session.Exchange`."""
        method, kind = _ORDERS[op]
        request = _parsed(body, kind)
        stub = order_service_pb2_grpc.OrderServiceStub(self._calls)
        with _refusals():
            answer: Message = await getattr(stub, method)(request, metadata=credentials.metadata, timeout=CALL_S)
        return as_json(answer)

    async def close(self) -> None:
        """End all that still runs."""
        for channel in (self._calls, *(connection.channel for connection in self._streams)):
            await channel.close(None)

    @contextmanager
    def place(self) -> Iterator[grpc.aio.Channel]:
        """Room for one stream, on a connection that has some."""
        connection = next((one for one in self._streams if one.streams < STREAMS_PER_CONNECTION), None)
        if connection is None:
            connection = _Connection(self._open())
            self._streams.append(connection)
        connection.streams += 1
        try:
            yield connection.channel
        finally:
            connection.streams -= 1

    def _open(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._target, options=_OPTIONS)


class _Connection:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.streams = 0


class _Stream:
    """A source of one channel."""

    def __init__(self, exchange: EdgeExchange, key: Key, credentials: Callable[[], Credentials]) -> None:
        self._exchange = exchange
        self._key = key
        self._credentials = credentials

    async def open(self, resume_token: str) -> AsyncGenerator[Update, None]:
        """See `updates.Source`."""
        with self._exchange.place() as channel, _refusals():
            call = _call(channel, self._key, resume_token, self._credentials().metadata)
            try:
                async for message in call:
                    yield update_of(message)
            finally:
                call.cancel()


def _call(channel: grpc.aio.Channel, key: Key, token: str, metadata: tuple[tuple[str, str], ...]) -> Any:
    # The stubs' types know the blocking kind of call alone.
    market: Any = market_service_pb2_grpc.MarketServiceStub(channel)
    data: Any = md_grpc.MarketDataServiceStub(channel)
    symbols = [key.symbol] if key.symbol else []
    match key.channel:
        case channels.BOOK if key.interval_ms == 0:
            # Of both, the one that an engine answers too while no market data are up.
            book = market_service_pb2.StreamOrderBookRequest(symbol=key.symbol, depth=key.depth, resume_token=token)
            return market.StreamOrderBook(book, metadata=metadata)
        case channels.BOOK:
            conflated = md.StreamBookRequest(
                symbol=key.symbol, depth=key.depth, interval_ms=key.interval_ms, resume_token=token
            )
            return data.StreamBook(conflated, metadata=metadata)
        case channels.BOOK_ORDERS:
            by_order = md.StreamBookOrdersRequest(symbol=key.symbol, resume_token=token)
            return data.StreamBookOrders(by_order, metadata=metadata)
        case channels.TRADES:
            trades = market_service_pb2.StreamTradesRequest(symbol=key.symbol, resume_token=token)
            return market.StreamTrades(trades, metadata=metadata)
        case channels.TICKER:
            return data.StreamTickers(md.StreamTickersRequest(symbols=symbols, resume_token=token), metadata=metadata)
        case channels.CANDLES:
            candles = md.StreamCandlesRequest(symbol=key.symbol, interval=key.interval, resume_token=token)
            return data.StreamCandles(candles, metadata=metadata)
        case channels.BEST_PRICES:
            prices = md.StreamBestPricesRequest(symbols=symbols, resume_token=token)
            return data.StreamBestPrices(prices, metadata=metadata)
        case channels.STATUS:
            status = md.StreamMarketStatusRequest(symbols=symbols, resume_token=token)
            return data.StreamMarketStatus(status, metadata=metadata)
        case channels.ORDERS:
            orders: Any = order_service_pb2_grpc.OrderServiceStub(channel)
            own = order_service_pb2.StreamOrderEventsRequest(resume_token=token)
            return orders.StreamOrderEvents(own, metadata=metadata)
        case channels.BALANCES:
            accounts: Any = account_service_pb2_grpc.AccountServiceStub(channel)
            return accounts.StreamBalances(account_service_pb2.StreamBalancesRequest(), metadata=metadata)
    raise AssertionError(f"no stream for the channel {key.channel}")


@contextmanager
def _refusals() -> Iterator[None]:
    """What the exchange refuses, as the ServiceError that it is."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_of(error, _REASONS) from error


def _parsed(body: dict[str, Any], kind: type[Message]) -> Message:
    """Raises ServiceError, naming what does not fit. Names of enum values may have any case, as in REST."""
    fields = {name: field for field in kind.DESCRIPTOR.fields for name in (field.name, field.json_name)}
    shaped: dict[str, Any] = {}
    for given, value in body.items():
        field = fields.get(given)
        if field is None:
            raise ServiceError(ErrorReason.FIELD_NOT_ALLOWED, "no such field", metadata={"field": given})
        name = field.name
        if name in shaped:
            # `orderType` is `order_type`.
            raise ServiceError(ErrorReason.MALFORMED_REQUEST, "a field is given twice", metadata={"field": name})
        shaped[name] = value
        if field.enum_type is not None and isinstance(value, str):
            shaped[name] = value.upper()
            if shaped[name] not in field.enum_type.values_by_name:
                raise ServiceError(ErrorReason.UNKNOWN_ENUM_VALUE, metadata={"field": name})
    try:
        return json_format.ParseDict(shaped, kind())
    except json_format.ParseError as error:
        raise ServiceError(ErrorReason.MALFORMED_REQUEST, str(error)) from None

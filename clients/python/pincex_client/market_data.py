"""`ExchangeClient.market_data`: candles, tickers and trades of any past, and what becomes of candles and tickers now."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio

from pincex.marketdata.v1 import feed_service_pb2, feed_service_pb2_grpc, market_data_service_pb2_grpc
from pincex.marketdata.v1 import market_data_service_pb2 as wire
from pincex_client.convert import from_wire, to_timestamp
from pincex_client.models import Candle, Ticker, Trade
from pincex_client.paging import all_pages
from pincex_client.streams import ResumableStream
from pincex_client.transport import Caller, Identity, Metadata
from pincex_client.venue_feeds import ReferencePrice

if TYPE_CHECKING:
    from pincex.marketdata.v1.market_data_service_pb2_grpc import MarketDataServiceAsyncStub

Update = TypeVar("Update")
Item = TypeVar("Item")

MAX_PAGE = 1_000
INTERVALS = ("1s", "1m", "5m", "15m", "1h", "4h", "1d")


class _NewestStream(ResumableStream[Update]):
    """A feed of `MarketDataUpdate`: the newest value counts, and a snapshot is marked by a field."""

    def __init__(self, stub: "MarketDataServiceAsyncStub", identity: Identity, **options: Any) -> None:
        super().__init__(identity, **options)
        self._stub = stub

    def _kind_of(self, message: Any) -> str:
        kind = super()._kind_of(message)
        return "snapshot" if message.snapshot and kind not in {"heartbeat", "drain", "end"} else kind


class CandleStream(_NewestStream[Candle]):
    """The candle of now with each change, and once more with `closed` when no trade can come to it any more.

    Nothing is left out but after an outage too long to be bridged: then `missed` counts, and `list_candles` has what came in
    between. `newest` is the last one told.
    """

    def __init__(
        self, stub: "MarketDataServiceAsyncStub", identity: Identity, symbol: str, interval: str = "1m", **options: Any
    ) -> None:
        super().__init__(stub, identity, **options)
        self.symbol = symbol
        self.interval = interval
        self.newest: Candle | None = None
        self.missed = 0

    def _call(self, resume_token: str, metadata: Metadata) -> Any:
        request = wire.StreamCandlesRequest(symbol=self.symbol, interval=self.interval, resume_token=resume_token)
        return self._stub.StreamCandles(request, metadata=metadata)

    def _apply(self, kind: str, message: Any) -> Iterable[Candle]:
        candles = [from_wire(Candle, candle) for candle in message.candles.candles]
        if kind == "snapshot" and self.newest is not None and candles:
            self.missed += candles[0].open_time != self.newest.open_time
        if candles:
            self.newest = candles[-1]
        return candles

    def _discard(self, *, history_changed: bool) -> None:
        if history_changed and self.newest is not None:
            self.missed += 1
            self.newest = None


class TickerStream(_NewestStream[Ticker]):
    """Tickers of some markets, or of all, whenever they change, at most once a second each. `tickers` has the newest."""

    def __init__(
        self, stub: "MarketDataServiceAsyncStub", identity: Identity, symbols: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init__(stub, identity, **options)
        self.symbols = tuple(symbols)
        self.tickers: dict[str, Ticker] = {}

    def _call(self, resume_token: str, metadata: Metadata) -> Any:
        request = wire.StreamTickersRequest(symbols=self.symbols, resume_token=resume_token)
        return self._stub.StreamTickers(request, metadata=metadata)

    def _apply(self, kind: str, message: Any) -> Iterable[Ticker]:
        if kind == "snapshot":
            self.tickers.clear()
        changed = [from_wire(Ticker, ticker) for ticker in message.tickers.tickers]
        self.tickers.update((ticker.symbol, ticker) for ticker in changed)
        return changed

    def _discard(self, *, history_changed: bool) -> None:
        del history_changed
        self.tickers.clear()


class MarketData:
    """What markets do and did, for everyone."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        caller: Caller,
        identity: Identity,
        stream_options: Callable[[], dict[str, Any]],
    ) -> None:
        self._caller = caller
        self._identity = identity
        self._stream_options = stream_options
        self._stub: Any = market_data_service_pb2_grpc.MarketDataServiceStub(channel)
        self._prices: Any = feed_service_pb2_grpc.ReferencePriceServiceStub(channel)

    async def _call(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    async def get_ticker(self, symbol: str) -> Ticker:
        """The last 24 hours of a market, to the second."""
        return from_wire(Ticker, await self._call(self._stub.GetTicker, wire.GetTickerRequest(symbol=symbol)))

    async def list_tickers(self) -> list[Ticker]:
        """All markets, by symbol."""
        request = wire.ListTickersRequest()
        return [
            from_wire(Ticker, ticker)
            async for page in all_pages(self._call, self._stub.ListTickers, request)
            for ticker in page.tickers
        ]

    async def get_reference_price(self, symbol: str) -> ReferencePrice:
        """What the prices of other venues come to. Raises Rejected PRICE_UNAVAILABLE where none of them counts."""
        request = feed_service_pb2.GetReferencePriceRequest(symbol=symbol)
        return from_wire(ReferencePrice, await self._call(self._prices.GetReferencePrice, request))

    async def list_candles(
        self,
        symbol: str,
        interval: str = "1m",
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int | None = 100,
    ) -> list[Candle]:
        """Candles that open from `start` on and before `end`, the newest first; intervals without trades have none."""
        request = wire.ListCandlesRequest(symbol=symbol, interval=interval, **_period(start, end))
        return await self._list(self._stub.ListCandles, request, lambda page: page.candles, Candle, limit)

    async def list_trades(
        self, symbol: str, *, start: datetime | None = None, end: datetime | None = None, limit: int | None = 100
    ) -> list[Trade]:
        """Trades made from `start` on and before `end`, the newest first, of any past. They stand here once they are settled."""
        request = wire.ListTradeHistoryRequest(symbol=symbol, **_period(start, end))
        return await self._list(self._stub.ListTradeHistory, request, lambda page: page.trades, Trade, limit)

    async def _list(
        self, method: Any, request: Any, items: Callable[[Any], Iterable[Any]], kind: type[Item], limit: int | None
    ) -> list[Item]:
        found: list[Item] = []
        size = MAX_PAGE if limit is None else max(1, min(limit, MAX_PAGE))
        async for page in all_pages(self._call, method, request, page_size=size):
            found += [from_wire(kind, item) for item in items(page)]
            if limit is not None and len(found) >= limit:
                break
        return found[:limit]

    def candle_stream(self, symbol: str, interval: str = "1m", **options: Any) -> CandleStream:
        """The candle of now as it changes."""
        return CandleStream(self._stub, self._identity, symbol, interval, **self._stream_options(), **options)

    def ticker_stream(self, *symbols: str, **options: Any) -> TickerStream:
        """Tickers as they change; of all markets where none is named."""
        return TickerStream(self._stub, self._identity, symbols, **self._stream_options(), **options)


def _period(start: datetime | None, end: datetime | None) -> dict[str, Any]:
    found = {"start_time": start, "end_time": end}
    return {name: to_timestamp(moment) for name, moment in found.items() if moment is not None}

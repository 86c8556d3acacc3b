"""Clients of market data that trust nothing: they check every message, go on by token wherever they are cut off, and keep what
they held at each sequence, so that it can be compared with what was.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from exchange.runtime.internal_client import reason_of
from pincex.marketdata.v1 import market_data_service_pb2 as data_pb
from pincex.marketdata.v1 import market_data_service_pb2_grpc
from pincex.trading.v1 import market_service_pb2 as pb
from pincex.trading.v1 import market_service_pb2_grpc
from tests.unit.market_data.streams_rig import copy_of

if TYPE_CHECKING:
    from collections.abc import Callable

# Streams have a heartbeat every 5 s.
SILENCE_S: Final = 12.0
# With these all that was built is void.
_VOID: Final = frozenset({"HISTORY_CHANGED", "SEQUENCE_NOT_RETAINED", "INVALID_RESUME_TOKEN"})


class VerifyingClient:
    """Follows one stream of a market: "levels DEPTH INTERVAL", "orders", "trades" or "best"."""

    def __init__(self, target: str, what: str, symbol: str) -> None:
        self.what = what
        self.copy = copy_of(what)
        self.connections = 0
        self.snapshots = 0
        self.discarded: list[str] = []
        self.ends: list[str] = []
        self.longest_silence_s = 0.0
        self.heartbeats = 0
        self.checksums: dict[int, int] = {}
        self.reading = asyncio.Event()
        self.reading.set()
        self._target = target
        self._symbol = symbol
        self._token = ""
        self._heard = time.monotonic()

    def _open(self, channel: Any) -> Any:
        kind, *more = self.what.split()
        data = market_data_service_pb2_grpc.MarketDataServiceStub(channel)
        fields: dict[str, Any] = {"resume_token": self._token}
        if kind == "levels" and more[1] == "0":
            whole = pb.StreamOrderBookRequest(symbol=self._symbol, depth=int(more[0]), **fields)
            return market_service_pb2_grpc.MarketServiceStub(channel).StreamOrderBook(whole)
        if kind == "levels":
            depth, interval_ms = int(more[0]), int(more[1])
            return data.StreamBook(
                data_pb.StreamBookRequest(symbol=self._symbol, depth=depth, interval_ms=interval_ms, **fields)
            )
        if kind == "orders":
            return data.StreamBookOrders(data_pb.StreamBookOrdersRequest(symbol=self._symbol, **fields))
        if kind == "trades":
            request = pb.StreamTradesRequest(symbol=self._symbol, **fields)
            return market_service_pb2_grpc.MarketServiceStub(channel).StreamTrades(request)
        return data.StreamBestPrices(data_pb.StreamBestPricesRequest(symbols=[self._symbol], **fields))

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                async with grpc.aio.insecure_channel(self._target) as channel:
                    await self._follow(self._open(channel))
            except AssertionError as wrong:
                # It knows: what it holds is thrown away at once.
                self.discarded.append(str(wrong))
                self._start_over()
            except grpc.aio.AioRpcError as error:
                if reason_of(error) in _VOID:
                    self._start_over()
            except TimeoutError:
                pass
            await asyncio.sleep(0.05)

    async def _follow(self, call: Any) -> None:
        self.connections += 1
        try:
            while True:
                await self.reading.wait()
                async with asyncio.timeout(SILENCE_S):
                    message = await call.read()
                if message is grpc.aio.EOF:  # type: ignore[attr-defined]
                    return
                self._heard_something()
                if message.HasField("end") and not message.resume_token:
                    self.ends.append(message.end.reason)
                    return
                self.copy.apply(message)
                self._token = message.resume_token
                self._note(message)
                if message.HasField("end"):
                    self.ends.append(message.end.reason)
                    return
        finally:
            call.cancel()

    def _note(self, message: Any) -> None:
        self.heartbeats += message.HasField("heartbeat")
        self.snapshots += message.prev_sequence == 0
        if hasattr(message, "checksum"):
            self.checksums[message.sequence] = message.checksum

    def _heard_something(self) -> None:
        now = time.monotonic()
        self.longest_silence_s = max(self.longest_silence_s, now - self._heard)
        self._heard = now

    def _start_over(self) -> None:
        self.copy = copy_of(self.what)
        self._token = ""


class CutNetwork:
    """A TCP proxy before `host:port` that can be cut."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._whole = True

    async def start(self) -> str:
        """Its own `host:port`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def cut(self, seconds: float) -> None:
        """Break every connection, and take none for a while."""
        self._whole = False
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(seconds)
        self._whole = True

    async def stop(self) -> None:
        """Take no more."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream}
        try:
            await asyncio.gather(_pump(reader, upstream), _pump(upstream_reader, writer))
        finally:
            for one in (writer, upstream):
                one.transport.abort()
                self._writers.discard(one)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def until(condition: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    """Wait until it holds."""
    ends = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < ends, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(0.02)

"""A market whose books are known at every sequence, behind a server that goes wrong in the ways that servers go wrong."""
# ruff: noqa: N802 - the contract names the methods

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from pincex.marketdata.v1 import market_data_service_pb2_grpc
from pincex.trading.v1 import market_service_pb2 as pb
from pincex.trading.v1 import market_service_pb2_grpc, types_pb2
from pincex_client import checksum_of
from tests.unit.client.fake_server import refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Side = dict[str, str]
# What may befall the next message, or the connection in its place.
FAULTS = ("gap", "checksum", "content", "silence", "drain", "disconnect", "end", "restart")


@dataclass
class Truth:
    """The book at every sequence of one history, and what changed with each."""

    number: int
    start: int
    books: dict[int, tuple[Side, Side]] = field(default_factory=dict)
    changes: dict[int, tuple[str, str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.books[self.start] = ({"99.00": "1.0"}, {"101.00": "1.0"})

    @property
    def last(self) -> int:
        """The newest sequence."""
        return max(self.books)


class FaultyMarkets:
    """One market; `fault` strikes once, at the next message of the next stream."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.truth = Truth(1, 100)
        self.fault = ""
        self.head = 0  # what heartbeats tell; 0: the truth
        self.struck: list[str] = []
        self.candles: list[list[Any]] = []
        self.tokens: list[str] = []
        self.lagging: Truth | None = None  # what an instance has that lies behind; streams are its own
        self._changed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        if not name[0].isupper():
            raise AttributeError(name)
        return None  # a method of the contract that nobody calls here

    def change(self) -> None:
        """One level of the book gets another quantity, or goes."""
        truth = self.truth
        bids, asks = (dict(side) for side in truth.books[truth.last])
        side, prices = self.random.choice(((bids, range(90, 100)), (asks, range(101, 111))))
        price = f"{self.random.choice(prices)}.00"
        quantity = self.random.choice(("0.0", "1.0", "2.0", "3.0"))
        if quantity == "0.0":
            side.pop(price, None)
        else:
            side[price] = quantity
        last = truth.last + self.random.randint(1, 3)
        truth.books[last] = (bids, asks)
        truth.changes[last] = ("bids" if side is bids else "asks", price, quantity)
        self.wake()

    def restart(self) -> None:
        """As after a restore from a backup: another history, which is not as far."""
        self.truth = Truth(self.truth.number + 1, self.truth.start - 10)
        self.wake()

    def wake(self) -> None:
        """Have the streams look."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def StreamOrderBook(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The book; see `fault`."""
        self.tokens.append(request.resume_token)
        truth = self.lagging or self.truth
        at = 0
        if request.resume_token:
            number, _, place = request.resume_token.partition(":")
            if int(number) != truth.number:
                await refuse(context, "HISTORY_CHANGED")
            at = int(place)
            if at > truth.last:
                await refuse(context, "SEQUENCE_IN_FUTURE")
        else:
            at = truth.last
            yield self._message(truth, at, 0, snapshot=self._snapshot(truth, at))
        while True:
            changed = self._changed
            if (self.lagging or self.truth) is not truth:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "restarted")
            for sequence in sorted(each for each in truth.changes if each > at):
                fault = self._strike()
                if fault == "restart":
                    self.restart()
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "restarted")
                if fault == "silence":
                    await asyncio.Event().wait()
                if fault == "disconnect":
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
                if fault == "drain":
                    notice = types_pb2.DrainNotice(resume_token=f"{truth.number}:{at}")
                    yield self._message(truth, at, at, drain=notice)
                    await asyncio.Event().wait()
                if fault == "end":
                    yield pb.OrderBookUpdate(sequence=at, prev_sequence=at, end=types_pb2.StreamEnd(reason="NOT_READY"))
                    return
                if fault != "gap":
                    yield self._delta(truth, sequence, at, fault)
                at = sequence
            head = self.head or truth.last
            beat = types_pb2.Heartbeat(head_sequence=head, resume_token=f"{truth.number}:{at}")
            yield self._message(truth, at, at, heartbeat=beat)
            await changed.wait()

    async def StreamCandles(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Played from a script: one list for each connection."""
        self.tokens.append(request.resume_token)
        for step in self.candles.pop(0) if self.candles else [None]:
            if isinstance(step, str):
                await refuse(context, step)
            if step is None:
                await asyncio.Event().wait()
            yield step

    def _strike(self) -> str:
        fault, self.fault = self.fault, ""
        if fault:
            self.struck.append(fault)
        return fault

    def _delta(self, truth: Truth, sequence: int, before: int, fault: str) -> pb.OrderBookUpdate:
        side, price, quantity = truth.changes[sequence]
        if fault == "content":
            quantity = "9.9"
        delta = pb.BookDelta(**{side: [types_pb2.PriceLevel(price=price, quantity=quantity, order_count=1)]})
        message = self._message(truth, sequence, before, delta=delta)
        if fault == "checksum":
            message.checksum ^= 1
        return message

    def _message(self, truth: Truth, sequence: int, before: int, **content: Any) -> pb.OrderBookUpdate:
        bids, asks = truth.books[sequence]
        texts = (
            [f"{price}:{side[price]}" for price in sorted(side, key=float, reverse=is_bid)][:10]
            for side, is_bid in ((bids, True), (asks, False))
        )
        return pb.OrderBookUpdate(
            symbol="BTCUSD",
            sequence=sequence,
            prev_sequence=before,
            checksum=checksum_of(*texts),
            resume_token=f"{truth.number}:{sequence}",
            **content,
        )

    @staticmethod
    def _snapshot(truth: Truth, sequence: int) -> pb.BookSnapshot:
        bids, asks = (
            [types_pb2.PriceLevel(price=price, quantity=quantity, order_count=1) for price, quantity in side.items()]
            for side in truth.books[sequence]
        )
        return pb.BookSnapshot(bids=bids, asks=asks, mode=types_pb2.OPEN)


@asynccontextmanager
async def served(markets: FaultyMarkets) -> AsyncIterator[str]:
    """The target of a server that is up until the end of the block."""
    server = grpc.aio.server()
    for add in (
        market_service_pb2_grpc.add_MarketServiceServicer_to_server,
        market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
    ):
        adder: Any = add
        adder(markets, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)

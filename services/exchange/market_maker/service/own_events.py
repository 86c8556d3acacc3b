"""Follows the account's own events: orders as they change, and fills, each of which is counted once."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import grpc.aio
import structlog

from exchange.market_maker.account import AccountBook, AccountOrder
from exchange.market_maker.exchange import Away
from exchange.market_maker.position import Fill
from exchange.market_maker.service.edge import Refused
from pincex.trading.v1 import order_service_pb2, order_service_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from exchange.market_maker.service.edge import Edge

# Three heartbeats.
SILENCE_S: Final = 15.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
# The exchange does not know the place, or no longer: from here on only what happens now is seen.
_LOST_PLACE: Final = frozenset({"HISTORY_CHANGED", "INVALID_RESUME_TOKEN", "SEQUENCE_NOT_RETAINED"})
_EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # the type stubs leave it out


class OwnEvents:
    """See `exchange.Follower`. Resumed at a token it is current again after the first heartbeat that follows, which says
    that nothing is left to come.
    """

    def __init__(self, edge: Edge, book: AccountBook) -> None:
        self._edge = edge
        self.book = book
        channel: Any = edge.channel
        self._stub: Any = order_service_pb2_grpc.OrderServiceStub(channel)
        self.is_current = False
        self._sequence = 0
        self._moved = asyncio.Event()
        self._snapshot: list[AccountOrder] = []
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("own-events")

    async def reach(self, sequence: int, timeout_s: float) -> bool:
        """Wait until what happened at this sequence is in the book; whether it is."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._sequence < sequence:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Until cancelled; a stream that ends is opened again."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._follow()
            except Away as error:
                self._log.warning("the account's own events stopped", error=str(error))
                if isinstance(error, Refused) and error.reason in _LOST_PLACE:
                    self._log.error("fills of the time in between are not counted", reason=error.reason)
                    self.book.token = ""
            pause = FIRST_PAUSE_S if self.is_current else min(2 * pause, LONGEST_PAUSE_S)
            self.is_current = False
            await asyncio.sleep(pause)

    async def _follow(self) -> None:
        request = order_service_pb2.StreamOrderEventsRequest(resume_token=self.book.token)
        call = self._stub.StreamOrderEvents(request, metadata=await self._edge.metadata())
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    message = await call.read()
                if message is _EOF:
                    return
                self._take(message)
        except grpc.aio.AioRpcError as error:
            raise self._edge.away(error) from error
        except TimeoutError:
            raise Away("nothing was heard") from None
        finally:
            call.cancel()

    def _take(self, message: order_service_pb2.OrderEvent) -> None:
        kind = message.WhichOneof("event")
        sequence = message.sequence
        match kind:
            case "snapshot":
                self._snapshot += map(order_of, message.snapshot.orders)
                if message.snapshot.complete:
                    self.book.begin_anew(self._snapshot)
                    self._snapshot = []
                    self.is_current = True
            case "order":
                self.book.changed(order_of(message.order))
            case "fill":
                self.book.filled(fill_of(message.fill))
                # The order that it changed comes next, at the same sequence.
                sequence -= 1
            case "heartbeat":
                self.is_current = True
                sequence = message.heartbeat.head_sequence
            case "end":
                raise Away(f"{message.end.reason}: {message.end.message}")
            case _:
                pass
        if message.resume_token:
            self.book.token = message.resume_token
        self._sequence = max(self._sequence, sequence)
        self._moved.set()


def order_of(order: types_pb2.Order) -> AccountOrder:
    """From the wire; a stop order, which has no price, is none of ours."""
    is_open = order.status in {types_pb2.PENDING, types_pb2.PARTIAL}
    return AccountOrder(
        order_id=order.order_id,
        symbol=order.symbol,
        side=types_pb2.Side.Name(order.side),
        price=Decimal(order.price or "0"),
        open=Decimal(order.open_quantity or "0") if is_open else Decimal(0),
    )


def fill_of(fill: types_pb2.Fill) -> Fill:
    """From the wire."""
    return Fill(
        symbol=fill.symbol,
        side=types_pb2.Side.Name(fill.side),
        quantity=Decimal(fill.quantity),
        notional=Decimal(fill.notional),
        fee=Decimal(fill.fee or "0"),
    )

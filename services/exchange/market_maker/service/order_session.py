"""The market maker's order session: its orders live as long as it does.

Its id is always the same, so whoever opens it takes it over: of two instances that believe to quote, one has lost it. It has no
grace: a lost connection takes the orders back at once, and so does a process that hangs (the dead-man timer). Nothing is sent
again: after a loss the session begins anew, with no orders.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc.aio

from exchange.market_maker.exchange import Away, Cancel, Place, Result
from exchange.market_maker.quoting import BUY
from pincex.common.v1.errors_pb2 import ErrorReason
from pincex.trading.v1 import order_commands_pb2, order_service_pb2_grpc, types_pb2
from pincex.trading.v1 import order_session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from exchange.market_maker.service.edge import Edge

SESSION: Final = "market-maker"
ANSWER_S: Final = 3.0
# Above what a round may take with all its waits.
DEAD_MAN_S: Final = 15
_EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # the type stubs leave it out
_SIDES: Final = {BUY: types_pb2.BUY}


class EdgeSession:
    """See `exchange.Session`."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        channel: Any = edge.channel
        self._stub: Any = order_service_pb2_grpc.OrderServiceStub(channel)
        self._call: Any = None
        self._number = 1
        self._max_batch = 1

    @property
    def is_open(self) -> bool:
        """Whether it was when something was last heard."""
        return self._call is not None

    async def ping(self) -> int:
        """The newest durable sequence; opens the session where it is not open. Raises Away."""
        if self._call is None:
            await self._open()
        await self._send(pb.OrderSessionRequest(ping=pb.SessionPing(nonce=1)))
        head: int = (await self._next("pong")).pong.head_sequence
        return head

    async def run(self, commands: Sequence[Cancel | Place]) -> list[Result]:
        """One result for each. Raises Away."""
        wired = [_wire(command) for command in commands]
        results: list[Result] = []
        for at in range(0, len(wired), self._max_batch):
            results += [_result(found) for found in await self._batch(wired[at : at + self._max_batch])]
        return results

    async def close(self) -> None:
        """End it, and its orders with it."""
        call, self._call = self._call, None
        if call is None:
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                await call.write(pb.OrderSessionRequest(close=pb.CloseSession()))
                await call.done_writing()
                while await call.read() is not _EOF:
                    pass
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            pass
        finally:
            # Whether it said good-bye or not: without a connection the session ends.
            call.cancel()

    async def _open(self) -> None:
        self._call = self._stub.OrderSession(metadata=await self._edge.metadata())
        opening = pb.OpenSession(session_id=SESSION, cancel_on_disconnect=True)
        opening.grace.FromMilliseconds(0)
        opening.dead_man_timeout.FromSeconds(DEAD_MAN_S)
        await self._send(pb.OrderSessionRequest(open=opening))
        opened = (await self._next("opened")).opened
        self._number = opened.last_number + 1
        self._max_batch = max(opened.max_batch_size, 1)
        # Of an instance that was here before, or of an operator's hand: the quotes are those of this session alone.
        everything = pb.SessionCommand(cancel_all=order_commands_pb2.CancelAllOrdersRequest())
        (result,) = await self._batch([everything])
        if result.reason:
            self._drop()
            raise Away(f"older orders cannot be taken back: {result.message}")

    async def _batch(self, commands: Sequence[pb.SessionCommand]) -> list[pb.CommandResult]:
        first = self._number
        self._number += len(commands)
        await self._send(pb.OrderSessionRequest(batch=pb.CommandBatch(first_number=first, commands=commands)))
        results: list[pb.CommandResult] = []
        while len(results) < len(commands):
            results += (await self._next("results")).results.results
        return results

    async def _send(self, message: pb.OrderSessionRequest) -> None:
        if self._call is None:
            raise Away("the order session is not open")
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            # What the exchange said against it is there to be read.
            await self._next("")
            raise Away("the order session does not take what is sent") from None

    async def _next(self, kind: str) -> Any:
        """The next message of this kind; heartbeats and the like in between say nothing of orders. Raises Away."""
        try:
            async with asyncio.timeout(ANSWER_S):
                async for message in self._messages():
                    which = message.WhichOneof("message")
                    if which == kind:
                        return message
                    if which == "end":
                        raise Away(f"the order session was ended: {message.end.reason}: {message.end.message}")
        except grpc.aio.AioRpcError as error:
            self._drop()
            raise self._edge.away(error) from error
        except TimeoutError:
            self._drop()
            raise Away("the order session does not answer") from None
        except Away:
            self._drop()
            raise
        self._drop()
        raise Away("the order session ended")

    async def _messages(self) -> AsyncIterator[pb.OrderSessionResponse]:
        while self._call is not None and (message := await self._call.read()) is not _EOF:
            yield message

    def _drop(self) -> None:
        """Let go of the connection: the session ends, and its orders."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


def _wire(command: Cancel | Place) -> pb.SessionCommand:
    if isinstance(command, Cancel):
        return pb.SessionCommand(cancel=order_commands_pb2.CancelOrderRequest(order_id=command.order_id))
    return pb.SessionCommand(
        place=order_commands_pb2.PlaceOrderRequest(
            symbol=command.symbol,
            side=_SIDES.get(command.side, types_pb2.SELL),
            order_type=types_pb2.LIMIT,
            quantity=f"{command.quantity:f}",
            price=f"{command.price:f}",
            post_only=True,
            client_order_id=command.client_order_id,
        )
    )


def _result(result: pb.CommandResult) -> Result:
    return Result(ErrorReason.Name(result.reason) if result.reason else "", result.sequence)

"""An order session as a raw client drives it, message by message."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration

from pincex.trading.v1 import order_commands_pb2, types_pb2
from pincex.trading.v1 import order_session_pb2 as pb
from tests.integration.trading.engine_app import Client, Stream, placing


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(value * 1e9))
    return duration


def buying(quantity: str, price: str, **more: Any) -> pb.SessionCommand:
    return pb.SessionCommand(place=placing(types_pb2.BUY, quantity, price, **more))


def selling(quantity: str, price: str, **more: Any) -> pb.SessionCommand:
    return pb.SessionCommand(place=placing(types_pb2.SELL, quantity, price, **more))


def cancelling(**fields: Any) -> pb.SessionCommand:
    return pb.SessionCommand(cancel=order_commands_pb2.CancelOrderRequest(**fields))


def replacing(**fields: Any) -> pb.SessionCommand:
    return pb.SessionCommand(replace=order_commands_pb2.ReplaceOrderRequest(**fields))


def reducing(**fields: Any) -> pb.SessionCommand:
    return pb.SessionCommand(reduce=order_commands_pb2.ReduceOrderRequest(**fields))


def cancelling_all(**fields: Any) -> pb.SessionCommand:
    return pb.SessionCommand(cancel_all=order_commands_pb2.CancelAllOrdersRequest(**fields))


class Session:
    """One connection."""

    def __init__(self, client: Client) -> None:
        self.stream: Stream = client.stream(client.orders.OrderSession)
        self.opened = pb.SessionOpened()

    @classmethod
    async def open(cls, client: Client, name: str = "s", **settings: Any) -> Session:
        """Open or attach, and read the answer."""
        session = cls(client)
        await session.stream.send(pb.OrderSessionRequest(open=pb.OpenSession(session_id=name, **settings)))
        session.opened = (await session.stream.next()).opened
        assert session.opened.session_id == name
        return session

    async def send(self, first_number: int, *commands: pb.SessionCommand) -> None:
        """A batch, without waiting for its results."""
        batch = pb.CommandBatch(first_number=first_number, commands=commands)
        await self.stream.send(pb.OrderSessionRequest(batch=batch))

    async def results(self) -> pb.ResultBatch:
        """The next results."""
        message = await self.stream.next()
        assert message.WhichOneof("message") == "results", message
        found: pb.ResultBatch = message.results
        return found

    async def run(self, first_number: int, *commands: pb.SessionCommand) -> list[pb.CommandResult]:
        """A batch and its results."""
        await self.send(first_number, *commands)
        found = await self.results()
        assert found.first_number == first_number
        assert len(found.results) == len(commands)
        return list(found.results)

    async def ping(self, nonce: int) -> None:
        """Without waiting for the pong."""
        await self.stream.send(pb.OrderSessionRequest(ping=pb.SessionPing(nonce=nonce)))

    async def close(self) -> None:
        """Say good-bye, and read to the end of the stream."""
        await self.stream.send(pb.OrderSessionRequest(close=pb.CloseSession()))
        assert await self.stream.rest() == []

    def drop(self) -> None:
        """Lose the connection, as a crash of the client would."""
        self.stream.call.cancel()

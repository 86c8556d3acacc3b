"""One connection of an order session: opening, reading with a watchdog, writing, and what its loss means."""

import asyncio
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from google.protobuf import duration_pb2

from pincex.trading.v1 import order_commands_pb2 as commands
from pincex.trading.v1 import order_session_pb2 as wire
from pincex_client.errors import (
    DataLoss,
    ExchangeError,
    InvalidRequest,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    decode_error,
    error_of_reason,
)
from pincex_client.results import CommandResult
from pincex_client.transport import END_OF_STREAM, Metadata, new_id, with_request_id

if TYPE_CHECKING:
    from pincex.trading.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from pincex_client.session import SessionOptions

CommandRequest = (
    wire.SessionCommand
    | commands.PlaceOrderRequest
    | commands.CancelOrderRequest
    | commands.ReplaceOrderRequest
    | commands.ReduceOrderRequest
    | commands.CancelAllOrdersRequest
)

FINAL_REASONS = frozenset({"SESSION_TAKEN_OVER", "TOO_MANY_SESSIONS", "UNKNOWN_PATH", "QUOTA_EXCEEDED"})

# Results with these speak of the connection or the session, not of the command: it goes again.
AGAIN_REASONS = frozenset(
    {
        "SESSION_NOT_FOUND",
        "COMMAND_NUMBER_OUT_OF_WINDOW",
        "JOURNAL_UNAVAILABLE",
        "DRAINING",
        "NOT_READY",
        "UPSTREAM_UNAVAILABLE",
        "UPSTREAM_TIMEOUT",
    }
)


class Lost(Exception):
    """The connection, or the session behind it, is gone; `error` says why."""

    def __init__(self, error: ExchangeError) -> None:
        super().__init__(str(error))
        self.error = error

    @staticmethod
    def raise_for(result: CommandResult) -> None:
        """Raise if a refusal speaks of the session as such."""
        if result.reason in AGAIN_REASONS:
            raise Lost(error_of_reason(result.reason, result.message))


def gives_up(error: ExchangeError) -> bool:
    """Whether connecting again cannot help."""
    if error.reason in FINAL_REASONS:
        return True
    return isinstance(error, InvalidRequest | Unauthenticated | PermissionDenied | DataLoss)


def command_of(request: CommandRequest) -> wire.SessionCommand:
    """Wrap a request as a session's command."""
    match request:
        case wire.SessionCommand():
            return request
        case commands.PlaceOrderRequest():
            return wire.SessionCommand(place=request)
        case commands.CancelOrderRequest():
            return wire.SessionCommand(cancel=request)
        case commands.ReplaceOrderRequest():
            return wire.SessionCommand(replace=request)
        case commands.ReduceOrderRequest():
            return wire.SessionCommand(reduce=request)
        case commands.CancelAllOrdersRequest():
            return wire.SessionCommand(cancel_all=request)
    raise TypeError(f"no session command: {type(request).__name__}")


def carries_id(command: wire.SessionCommand) -> bool:
    """Whether the command can be told from a second one of its kind without its session number."""
    kind = command.WhichOneof("command")
    if kind == "place":
        return bool(command.place.client_order_id)
    return kind is not None and bool(getattr(command, kind).request_id)


class Link:
    """One bidirectional stream. Not used again once it has failed."""

    def __init__(self, stub: "OrderServiceAsyncStub", metadata: Metadata, options: "SessionOptions") -> None:
        self.draining = False
        self._options = options
        self._nonce = 0
        self._request_id = new_id("r")
        # grpcio takes no request iterator where one writes; its type stubs want one.
        self._call = stub.OrderSession(metadata=with_request_id(metadata, self._request_id))  # type: ignore[call-arg]

    async def open(self, session_id: str) -> wire.SessionOpened:
        """Send `open` and return `opened`. Raises Lost."""
        options = self._options
        message = wire.OpenSession(session_id=session_id, cancel_on_disconnect=options.cancel_on_disconnect)
        if options.grace is not None:
            message.grace.CopyFrom(duration(options.grace))
        if options.dead_man_timeout is not None:
            message.dead_man_timeout.CopyFrom(duration(options.dead_man_timeout))
        try:
            async with asyncio.timeout(options.policy.attempt_timeout):
                # A stopped process takes the message and says nothing; nothing is at stake yet, so patience is short.
                await self.send(wire.OrderSessionRequest(open=message))
                response = await self.read()
        except TimeoutError:
            raise Lost(Unavailable("the session was not opened in time", reason="UPSTREAM_TIMEOUT")) from None
        if response is None or response.WhichOneof("message") != "opened":
            raise Lost(Unavailable("the session was not opened", reason="UPSTREAM_UNAVAILABLE"))
        return response.opened

    async def send(self, request: wire.OrderSessionRequest) -> bool:
        """Write, waiting while the connection is full. False: it is gone, and the reader learns why."""
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def ping(self) -> bool:
        """Send a ping; False as `send`."""
        self._nonce += 1
        return await self.send(wire.OrderSessionRequest(ping=wire.SessionPing(nonce=self._nonce)))

    async def finish(self) -> None:
        """End the session for good and say that nothing more comes."""
        if await self.send(wire.OrderSessionRequest(close=wire.CloseSession())):
            await self._call.done_writing()

    async def read(self) -> wire.OrderSessionResponse | None:
        """Return the next message, None at the end of the stream.

        Raises Lost when the connection fails, when the server ends the stream with a reason, and when nothing came
        for three heartbeats: a connection may be mute and yet look alive.
        """
        patience = self._options.drain_patience if self.draining else self._options.stale_after
        try:
            async with asyncio.timeout(patience):
                response = await self._call.read()
        except TimeoutError:
            raise Lost(Unavailable("the session went silent", reason="UPSTREAM_TIMEOUT")) from None
        except grpc.aio.AioRpcError as failure:
            raise Lost(decode_error(failure, self._request_id)) from None
        if response is END_OF_STREAM:
            return None
        assert isinstance(response, wire.OrderSessionResponse)
        match response.WhichOneof("message"):
            case "drain":
                self.draining = True
            case "end":
                end = response.end
                raise Lost(error_of_reason(end.reason or "UPSTREAM_UNAVAILABLE", end.message))
            case _:
                pass
        return response

    def drop(self) -> None:
        """Let go of the stream at once."""
        self._call.cancel()


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a Duration."""
    message = duration_pb2.Duration()
    message.FromMilliseconds(round(seconds * 1_000))
    return message

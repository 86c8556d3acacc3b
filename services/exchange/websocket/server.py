"""The listener of `/ws`: handshakes, connections, what ends them, and leaving in good order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Response
from websockets.protocol import OPEN

from exchange.runtime.client_address import FORWARDED_KEY, client_address
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.http_server import LOOPBACK, Readiness
from exchange.runtime.principal import ACCOUNT_KEY
from exchange.websocket import messages
from exchange.websocket.credentials import AUTHORIZATION_KEY, Credentials, from_headers
from exchange.websocket.origins import is_allowed
from exchange.websocket.outbox import Outbox
from exchange.websocket.payload import PLAIN, compression, window_bits_of
from exchange.websocket.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from websockets.http11 import Request
    from websockets.server import ServerProtocol

    from exchange.websocket.counts import Counts
    from exchange.websocket.feed import Feeds
    from exchange.websocket.limits import Limits
    from exchange.websocket.session import Exchange

PATH: Final = "/ws"
READY_PATH: Final = "/readyz"
MAX_FORWARDED: Final = 1_024
UPKEEP_S: Final = 5.0

# Why connections end, as metrics say it.
CLIENT, LOST, DRAINING, SLOW, IDLE = "client", "lost", "draining", "slow_consumer", "idle"
CLEANED_UP, TOO_MANY_MESSAGES, TOO_LARGE, NO_PONG, PROTOCOL = (
    "cleaned_up",
    "too_many_messages",
    "too_large",
    "no_pong",
    "protocol",
)
_BY_CODE: Final = {
    CloseCode.MESSAGE_TOO_BIG: TOO_LARGE,
    CloseCode.INTERNAL_ERROR: NO_PONG,
    CloseCode.PROTOCOL_ERROR: PROTOCOL,
    CloseCode.INVALID_DATA: PROTOCOL,
}


class Socket(ServerConnection):
    """A connection of the library, that says when it takes more, and writes frames that are ready."""

    def __init__(self, protocol: ServerProtocol, server: Server, **settings: Any) -> None:
        super().__init__(protocol, server, **settings)
        self.credentials = Credentials()
        self.account = ""
        self.address = ""
        self.window_bits = PLAIN
        self.outbox: Outbox | None = None
        self.heard_at = self.loop.time()
        fail = protocol.fail

        def fail_with_reason(code: int, reason: str = "") -> None:
            fail(code, f"BODY_TOO_LARGE: {reason}"[:120] if code == CloseCode.MESSAGE_TOO_BIG else reason)

        protocol.fail = fail_with_reason  # type: ignore[method-assign]  # the library's own text has no reason of ours

    @property
    def is_open(self) -> bool:
        """See `outbox.Wire`."""
        return self.protocol.state is OPEN

    @property
    def is_full(self) -> bool:
        """See `outbox.Wire`."""
        return self.paused

    def write_frame(self, frame: bytes) -> None:
        """See `outbox.Wire`."""
        self.transport.write(frame)

    def data_received(self, data: bytes) -> None:
        """Anything, a pong too, is a sign of life."""
        self.heard_at = self.loop.time()
        super().data_received(data)

    def resume_writing(self) -> None:
        """The buffer has room again."""
        super().resume_writing()
        if self.outbox is not None:
            self.outbox.flush()


@dataclass(slots=True)
class Client:
    """An open connection; `why` it ends, once this process has decided that."""

    socket: Socket
    session: Session
    why: str = ""


class WebSocketServer:
    """See the module."""

    def __init__(self, exchange: Exchange, feeds: Feeds, limits: Limits, counts: Counts, *, instance: str) -> None:
        self.feeds = feeds
        self.limits = limits
        self.counts = counts
        self.clients: dict[Socket, Client] = {}
        # How many of them there are, by address.
        self.addresses: Counter[str] = Counter()
        self.port = 0
        self._exchange = exchange
        self._instance = instance
        self._server: Server | None = None
        self._draining = False
        # Set whenever a client leaves.
        self._left = asyncio.Event()
        self._upkeep: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0, *, ready: Callable[[], Readiness] | None = None) -> int:
        """Listen on loopback, 0 for any free port, and return the port. Raises OSError."""
        self._ready = ready if ready is not None else lambda: Readiness(ready=True)
        # It logs every connection; what matters is counted.
        log = logging.getLogger("websockets.server")
        log.setLevel(logging.ERROR)
        limits = self.limits
        self._server = await serve(
            self._serve,
            LOOPBACK,
            port,
            create_connection=Socket,
            process_request=self._handshake,
            server_header=None,
            compression=None,
            extensions=[compression()],
            max_size=limits.message_bytes,
            max_queue=8,
            write_limit=limits.write_buffer_bytes,
            ping_interval=limits.ping_interval_s,
            ping_timeout=limits.ping_timeout_s,
            close_timeout=limits.close_timeout_s,
            open_timeout=limits.open_timeout_s,
            logger=log,
            backlog=1_024,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._upkeep = asyncio.create_task(self._close_idle())
        return self.port

    @property
    def subscriptions(self) -> Counter[str]:
        """How many there are, by channel."""
        return Counter(key.channel for client in self.clients.values() for key in client.session.subscriptions)

    async def drain(self, grace_s: float) -> None:
        """Let nobody in, tell everybody to leave, and close those who have not after `grace_s`."""
        self._draining = True
        notice = messages.drain(time.time() + grace_s)
        for client in list(self.clients.values()):
            if client.socket.outbox is not None:
                client.socket.outbox.put(notice)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self.clients:
                    self._left.clear()
                    await self._left.wait()

    async def stop(self) -> None:
        """Close everything."""
        self._draining = True
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
        reason = "DRAINING: connect again"
        for client in list(self.clients.values()):
            self._close(client, DRAINING, CloseCode.GOING_AWAY, reason)
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._server is not None:
            self._server.close(code=CloseCode.GOING_AWAY, reason=reason)
            await self._server.wait_closed()
        await self.feeds.close()

    def clean_up(self, idle_s: float) -> int:
        """Close who subscribes to nothing and has asked for nothing for so long, and who was not heard of at all.

        Not who waits for the outcome of an order. Returns how many.
        """
        now = asyncio.get_running_loop().time()
        found = [client for client in self.clients.values() if self._is_idle(client, now, idle_s)]
        for client in found:
            self._close(client, CLEANED_UP, CloseCode.POLICY_VIOLATION, "the operator closes idle connections")
        return len(found)

    # --- handshake ---

    async def _handshake(self, socket: ServerConnection, request: Request) -> Response | None:
        assert isinstance(socket, Socket)
        path = request.path.partition("?")[0]
        if path == READY_PATH:
            state = self._ready()
            fine = state.ready and not self._draining
            return _text(HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE, "ok\n" if fine else "not ready\n")
        try:
            if path != PATH:
                raise ServiceError(ErrorReason.UNKNOWN_PATH)
            await self._admit(socket, request)
        except ServiceError as error:
            self.counts.refused[error.reason_name] += 1
            return _refusal(error)
        return None

    async def _admit(self, socket: Socket, request: Request) -> None:
        if self._draining:
            raise ServiceError(ErrorReason.DRAINING)
        if len(self.clients) >= self.limits.connections:
            raise ServiceError(ErrorReason.OVERLOADED, metadata={"limit": f"{self.limits.connections} connections"})
        headers = request.headers
        if not is_allowed(headers.get_all("origin"), headers.get_all("host")):
            raise ServiceError(ErrorReason.PERMISSION_DENIED, "pages of this origin may not connect")
        forwarded = ", ".join(headers.get_all(FORWARDED_KEY))
        if len(forwarded) > MAX_FORWARDED:
            raise ServiceError(ErrorReason.MALFORMED_REQUEST, f"{FORWARDED_KEY} is too long")
        host, port = socket.remote_address[:2]
        socket.address = client_address(f"ipv4:{host}:{port}", ((FORWARDED_KEY, forwarded),))
        if self.addresses[socket.address] >= self.limits.connections_of_address:
            limit = f"{self.limits.connections_of_address} connections of an address"
            raise ServiceError(ErrorReason.QUOTA_EXCEEDED, metadata={"limit": limit})
        given = {name: _single(headers.get_all(name), name) for name in (AUTHORIZATION_KEY, ACCOUNT_KEY)}
        socket.credentials = from_headers(given, forwarded)
        if not socket.credentials.is_anonymous:
            socket.account = await self._exchange.account(socket.credentials)

    # --- a connection's life ---

    async def _serve(self, connection: ServerConnection) -> None:
        socket = connection
        assert isinstance(socket, Socket)
        socket.window_bits = window_bits_of(list(socket.protocol.extensions))
        outbox = socket.outbox = Outbox(socket, self.limits, self.counts, lambda: self._too_slow(socket))
        session = Session(
            self._exchange,
            self.feeds,
            outbox,
            self.limits,
            self.counts,
            socket.credentials,
            socket.account,
            lambda: self._too_busy(socket),
        )
        client = self.clients[socket] = Client(socket, session)
        self.addresses[socket.address] += 1
        try:
            outbox.put(messages.welcome(self._instance, socket.account, socket.credentials.expires, self.limits))
            if self._draining:
                outbox.put(messages.drain(time.time()))
            async for message in socket:
                await session.take(message)
        except ConnectionClosed:
            pass
        finally:
            del self.clients[socket]
            self.addresses[socket.address] -= 1
            if not self.addresses[socket.address]:
                del self.addresses[socket.address]
            self._left.set()
            await session.close()
            self.counts.closed[client.why or _why(socket)] += 1

    def _too_slow(self, socket: Socket) -> None:
        reason = "SLOW_CONSUMER: you read too slowly; connect again and resume"
        self._close(self.clients[socket], SLOW, CloseCode.TRY_AGAIN_LATER, reason)

    def _too_busy(self, socket: Socket) -> None:
        reason = "QUOTA_EXCEEDED: too many messages"
        self._close(self.clients[socket], TOO_MANY_MESSAGES, CloseCode.POLICY_VIOLATION, reason)

    def _close(self, client: Client, why: str, code: CloseCode, reason: str) -> None:
        if client.why:
            return
        client.why = why
        task = asyncio.create_task(self._close_now(client, code, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_now(self, client: Client, code: CloseCode, reason: str) -> None:
        # What it follows costs nothing more, however long its connection takes to end.
        await client.session.close()
        try:
            # The library waits without a limit for who does not read to take what was written before.
            async with asyncio.timeout(self.limits.close_timeout_s):
                await client.socket.close(code, reason)
        except TimeoutError:
            client.socket.transport.abort()

    def _is_idle(self, client: Client, now: float, idle_s: float) -> bool:
        session = client.session
        if session.orders_under_way:
            return False
        asks_nothing = not session.subscriptions and now - session.active_at >= idle_s
        return asks_nothing or now - client.socket.heard_at >= idle_s

    async def _close_idle(self) -> None:
        limits = self.limits
        while True:
            await asyncio.sleep(min(UPKEEP_S, limits.idle_s / 4, limits.silence_s / 4))
            now = asyncio.get_running_loop().time()
            for client in list(self.clients.values()):
                if now - client.socket.heard_at >= limits.silence_s:
                    self._close(client, NO_PONG, CloseCode.INTERNAL_ERROR, "keepalive: nothing was heard of you")
                elif self._is_idle(client, now, limits.idle_s):
                    reason = "idle: subscribe to something, or ask for something"
                    self._close(client, IDLE, CloseCode.NORMAL_CLOSURE, reason)


def _why(socket: Socket) -> str:
    """Why a connection has ended by itself."""
    protocol = socket.protocol
    sent, received = protocol.close_sent, protocol.close_rcvd
    if received is not None and not (sent is not None and protocol.close_rcvd_then_sent is False):
        return CLIENT
    if sent is not None:
        return _BY_CODE.get(CloseCode(sent.code), LOST) if sent.code in set(CloseCode) else LOST
    return LOST


def _single(values: Iterable[str], name: str) -> str:
    found = list(values)
    if len(found) > 1:
        raise ServiceError(ErrorReason.TOKEN_REFUSED, f"{name} is given twice")
    return found[0] if found else ""


def _refusal(error: ServiceError) -> Response:
    """As REST refuses: a `google.rpc.Status` in JSON."""
    body = json_format.MessageToJson(error.to_status())
    response = _text(HTTPStatus(error.row.http_status), body, "application/json")
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
    return response


def _text(status: HTTPStatus, text: str, content_type: str = "text/plain; charset=utf-8") -> Response:
    body = text.encode()
    headers = Headers({"Content-Type": content_type, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)

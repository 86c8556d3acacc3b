"""Channels and calls: keepalive, metadata, deadlines, and retries where a repeat is safe."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio

from pincex_client.errors import Backoff, ExchangeError, Unavailable, decode_error

Request = TypeVar("Request")
Request_contra = TypeVar("Request_contra", contravariant=True)
Response = TypeVar("Response")
Response_co = TypeVar("Response_co", covariant=True)
Metadata = tuple[tuple[str, str], ...]

# Servers and proxies refuse pings that come often (GOAWAY too_many_pings), some of them each 10 s: stay well above.
KEEPALIVE_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 10_000
# What `call.read()` returns at the end of a stream; the type stubs of grpcio do not know it.
END_OF_STREAM: Any = grpc.aio.EOF  # type: ignore[attr-defined]
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The SDK retries itself: it alone knows which calls carry an id.
    ("grpc.enable_retries", 0),
    # A server that restarts is back within a second; gRPC's own default would look away for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Two clients in one process must not share one connection.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to try. Seconds throughout.

    `deadline` bounds one call of the SDK with all its attempts; `attempt_timeout` one attempt, after which a call
    that may be repeated is repeated; `first_delay` and `max_delay` bound the back-off between attempts.
    """

    deadline: float = 15.0
    attempt_timeout: float = 5.0
    first_delay: float = 0.05
    max_delay: float = 2.0

    def backoff(self) -> Backoff:
        """A fresh back-off for one call."""
        return Backoff(first=self.first_delay, ceiling=self.max_delay)


class UnaryMethod(Protocol[Request_contra, Response_co]):
    """A method of a generated asynchronous stub."""

    def __call__(
        self, request: Request_contra, /, *, timeout: float | None = None, metadata: Any = None
    ) -> Awaitable[Response_co]:
        """Start the call."""
        ...


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom to trust, and who we are. All files are PEM.

    `authority`: who signs the exchange's certificate; None for those that gRPC trusts anyway. `certificate`: the client's own,
    for an mTLS listener, with `key` beside it or in the same file.
    """

    authority: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises ValueError where one cannot be read, or for a key without its certificate."""
        if self.key is not None and self.certificate is None:
            raise ValueError("a key is of no use without its certificate")
        chain = _read(self.certificate)
        return grpc.ssl_channel_credentials(_read(self.authority), _read(self.key) if self.key else chain, chain)


def open_channel(target: str, options: Sequence[tuple[str, int]] = (), tls: Tls | None = None) -> grpc.aio.Channel:
    """Open a channel, over TLS for `https://` and in plain text otherwise; it connects with the first call.

    Later options replace earlier ones. Raises what `Tls.credentials` raises.
    """
    merged = tuple((dict(CHANNEL_OPTIONS) | dict(options)).items())
    if not is_https(target):
        return grpc.aio.insecure_channel(strip_scheme(target), options=merged)
    address = strip_scheme(target.removeprefix("https://"))
    return grpc.aio.secure_channel(address, (tls or Tls()).credentials(), options=merged)


def is_https(target: str) -> bool:
    """Whether the target asks for TLS."""
    return target.startswith("https://")


def _read(file: str | Path | None) -> bytes | None:
    try:
        return Path(file).read_bytes() if file is not None else None
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None


def strip_scheme(target: str) -> str:
    """Accept `http://127.0.0.1:8080/` where gRPC wants `127.0.0.1:8080`."""
    return target.removeprefix("http://").rstrip("/")


def new_id(prefix: str = "c") -> str:
    """A fresh id that the contract accepts: printable ASCII without spaces."""
    return f"{prefix}-{uuid.uuid4().hex}"


def with_request_id(metadata: Metadata, request_id: str) -> Metadata:
    """The headers of a call and its id, which leads to the server's log."""
    return (*metadata, ("x-request-id", request_id))


class Identity(Protocol):
    """Who calls; `pincex_client.credentials` has the kinds."""

    async def metadata(self) -> Metadata:
        """Headers for a call that is made now. Raises ExchangeError where they cannot be had."""
        ...

    def outdated(self, error: ExchangeError, used: Metadata) -> bool:
        """Whether `used` was refused for its age, and `metadata()` gives other headers from now on.

        Never where `used` is empty: then it was `metadata()` itself that failed.
        """
        ...


class Caller:
    """Makes unary calls with the client's identity, and repeats those that may be repeated."""

    def __init__(self, identity: Identity, policy: RetryPolicy) -> None:
        self.identity = identity
        self.policy = policy

    async def call(
        self,
        method: UnaryMethod[Request, Response],
        request: Request,
        *,
        repeatable: bool,
        deadline: float | None = None,
        attempt_timeout: float | None = None,
    ) -> Response:
        """Call and return the answer, or raise an `ExchangeError`.

        `repeatable` says that a second execution changes nothing: reads, and mutations that carry an id. Others get
        one attempt; a failure then leaves their outcome unknown. `attempt_timeout` is for what takes long by its nature: each
        attempt may take so many seconds, though none begins after `deadline`.
        """
        request_id = new_id("r")
        renewed = False
        loop = asyncio.get_running_loop()
        backoff = self.policy.backoff()
        remaining = self.policy.deadline if deadline is None else deadline
        end = loop.time() + remaining
        while True:
            timeout = attempt_timeout or (min(self.policy.attempt_timeout, remaining) if repeatable else remaining)
            metadata: Metadata = ()
            try:
                metadata = await self.identity.metadata()
                return await method(request, timeout=timeout, metadata=with_request_id(metadata, request_id))
            except grpc.aio.AioRpcError as failure:
                error = decode_error(failure, request_id)
            except ExchangeError as no_headers:
                error = no_headers
            if not renewed and self.identity.outdated(error, metadata):
                # A refused token did nothing, so this repeats even what must not be repeated.
                renewed = True
                continue
            if not (repeatable and error.transient):
                raise error
            delay = backoff.next_delay(error.retry_after)
            remaining = end - loop.time() - delay
            if remaining <= 0:
                raise error
            await asyncio.sleep(delay)


async def within(
    deadline: float, attempt: Callable[[], Awaitable[Response]], *, again: Callable[[ExchangeError], bool]
) -> Response:
    """Repeat `attempt` while it raises errors for which `again` holds, for at most `deadline` seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    backoff = Backoff()
    while True:
        try:
            return await attempt()
        except ExchangeError as error:
            delay = backoff.next_delay(error.retry_after)
            if not again(error) or loop.time() + delay > end:
                raise
        await asyncio.sleep(delay)


def unreachable(error: ExchangeError) -> bool:
    """Whether the error says that nobody answered, as opposed to an answer that refuses."""
    return isinstance(error, Unavailable)

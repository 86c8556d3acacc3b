"""What all feeds share: resume, gap detection, a watchdog, and the decision whether to go on.

A feed connects, hands each message to its subclass, and reconnects by itself with the last resume token. Where the
contract's `prev_sequence` does not match, the feed throws its state away and begins with a fresh snapshot; it counts
that in `gaps`. It ends only when closed or when the exchange refuses for good (unknown symbol, no permission).

Meanwhile `trouble` says whether what it shows may be old, and why: what is old is never passed off as new.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
import grpc.aio

from pincex_client.errors import (
    RESET_REASONS,
    Backoff,
    DataLoss,
    ExchangeError,
    InternalError,
    Unavailable,
    decode_error,
    error_of_reason,
)
from pincex_client.horizon import Horizon
from pincex_client.transport import END_OF_STREAM, Identity, Metadata, new_id, with_request_id

Update = TypeVar("Update")

HEARTBEAT_INTERVAL = 5.0
STALE_AFTER = 3 * HEARTBEAT_INTERVAL
# A heartbeat tells a head; other streams, and answers, may have told a newer one, but not for so long.
BEHIND_AFTER = 2 * HEARTBEAT_INTERVAL


class Reconnect(Exception):
    """Connect again; `error` says why, None after a drain notice. `reset` drops the resume token and all state."""

    def __init__(self, error: ExchangeError | None, *, reset: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.reset = reset


class ResumableStream(ABC, Generic[Update]):
    """An endless feed: `async for update in stream`. One reader at a time.

    `stale_after` is the watchdog in seconds, `max_downtime` how long to try without a single message (None: for ever).
    Streams of one client share a `horizon`: one whose heartbeats tell a head that others have left behind for `behind_after`
    seconds is connected anew.
    Counters: `reconnects`, `gaps` (sequence mismatches), `mismatches` (content that does not add up), `resets`
    (state thrown away), `laggings` (connections that lay behind). `head_sequence` is the newest durable sequence that a heartbeat has told.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        stale_after: float = STALE_AFTER,
        max_downtime: float | None = None,
        resume_token: str = "",
        behind_after: float = BEHIND_AFTER,
        horizon: Horizon | None = None,
    ) -> None:
        self.stale_after = stale_after
        self.behind_after = behind_after
        self.max_downtime = max_downtime
        self.resume_token = resume_token
        self.sequence = 0
        self.head_sequence = 0
        self.reconnects = 0
        self.gaps = 0
        self.mismatches = 0
        self.resets = 0
        self.laggings = 0
        self._horizon = horizon or Horizon()
        # Of the present connection: whether a message has come, and the newest sequence that it has spoken of.
        self._is_fresh = False
        self._reached = 0
        # The newest sequence that was ever shown: what lies before it is old, whoever sends it.
        self._shown = 0
        self._identity = identity
        self._used: Metadata = ()
        self._renewed = False
        self._have_state = False
        self._resumed = False
        self._watchers: dict[asyncio.Future[None], int] = {}
        self._backoff = Backoff()
        self._alive_time = 0.0
        self._updates: AsyncGenerator[Update] | None = None

    # --- What a feed says of itself ---------------------------------------------------------------------------------

    @abstractmethod
    def _call(self, resume_token: str, metadata: Metadata) -> Any:
        """Start the server's stream."""

    @abstractmethod
    def _apply(self, kind: str, message: Any) -> Iterable[Update]:
        """Take in one message that carries content; raise `Reconnect` if it does not add up."""

    def _check(self, message: Any) -> None:
        """Check what every message carries, heartbeats too, after it was applied."""
        del message

    def _discard(self, *, history_changed: bool) -> None:
        """Throw away what was built up: it is wrong, or belongs to another history."""

    def _interrupted(self) -> Iterable[Update]:
        """What to tell the reader when the connection is lost: nothing, unless the feed says so."""
        return ()

    # --- How old it is ----------------------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """Why what the feed shows may be old: "connecting", "silent" or "behind"; "" where all is well.

        Whoever does not read on finds it silent, too: what was not read is not known.
        """
        if not self._is_fresh:
            return "connecting"
        if time.monotonic() - self._alive_time > self.stale_after:
            return "silent"
        return "behind" if self._reached < self._shown else ""

    @property
    def stale(self) -> bool:
        """Whether what the feed shows may be old."""
        return bool(self.trouble)

    # --- Iteration --------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        """Iterate over updates."""
        return self

    async def __anext__(self) -> Update:
        """Return the next update; raises the `ExchangeError` that ends the feed."""
        if self._updates is None:
            self._updates = self._run()
        try:
            return await anext(self._updates)
        except BaseException:
            # A cancelled wait ends the connection, not the feed: the next call resumes.
            self._updates = None
            raise

    async def __aenter__(self) -> Self:
        """Connect with the first update asked for."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the stream."""
        await self.aclose()

    async def reached(self, sequence: int) -> None:
        """Wait until the feed is at an engine sequence or beyond; somebody else must be reading it.

        All before the sequence has been told then; of the sequence itself more messages may follow.
        """
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers[watcher] = sequence
        self._tell_watchers()
        await watcher

    async def aclose(self) -> None:
        """Let go of the stream; iteration is over."""
        updates, self._updates = self._updates, None
        if updates is not None:
            await updates.aclose()

    async def _run(self) -> AsyncGenerator[Update]:
        self._alive_time = time.monotonic()
        while True:
            error: ExchangeError | None = None
            try:
                async with aclosing(self._connection()) as updates:
                    async for update in updates:
                        yield update
            except Reconnect as turn:
                if turn.reset:
                    self._reset(turn.error)
                error = turn.error
            finally:
                was_fresh, self._is_fresh = self._is_fresh, False
            if was_fresh:
                for update in self._interrupted():
                    yield update
            self.reconnects += 1
            silence = time.monotonic() - self._alive_time
            if error is not None and self.max_downtime is not None and silence > self.max_downtime:
                raise error
            await asyncio.sleep(self._backoff.next_delay(error.retry_after if error else None))

    async def _connection(self) -> AsyncGenerator[Update]:
        """Yield the updates of one connection; it always ends with `Reconnect` or the error that ends the feed."""
        request_id = new_id("r")
        self._resumed = self._have_state
        self._reached = 0
        try:
            self._used = await self._identity.metadata()
        except ExchangeError as error:
            raise (Reconnect(error) if error.transient else error) from None
        call = self._call(self.resume_token, with_request_id(self._used, request_id))
        try:
            while True:
                message = await self._read(call, request_id)
                updates = self._take(message)
                self._resumed = False
                for update in updates:
                    yield update
        finally:
            call.cancel()

    async def _read(self, call: Any, request_id: str) -> Any:
        try:
            async with asyncio.timeout(self.stale_after):
                message = await call.read()
        except TimeoutError:
            # Connected but mute, while pings pass: the commonest complaint about feeds.
            raise Reconnect(Unavailable("the stream went silent", reason="UPSTREAM_TIMEOUT")) from None
        except grpc.aio.AioRpcError as failure:
            raise self._turn(decode_error(failure, request_id)) from None
        if message is END_OF_STREAM:
            raise Reconnect(Unavailable("the server ended the stream", reason="UPSTREAM_UNAVAILABLE"))
        return message

    def _turn(self, error: ExchangeError) -> Exception:
        """Whether an error means to connect again, to begin again, or the end."""
        if error.reason in RESET_REASONS:
            return Reconnect(error, reset=True)
        if error.transient or isinstance(error, InternalError):
            return Reconnect(error)
        if not self._renewed and self._identity.outdated(error, self._used):
            # Once in a row: where new headers are refused too, that is the end.
            self._renewed = True
            return Reconnect(error)
        return error

    def _kind_of(self, message: Any) -> str:
        """What a message carries; "" for content of a newer contract, whose sequence still counts."""
        return message.WhichOneof("event" if "event" in message.DESCRIPTOR.oneofs_by_name else "update") or ""

    def _take(self, message: Any) -> Iterable[Update]:
        """Check one message's place in the stream, and apply it."""
        kind = self._kind_of(message)
        if kind == "end":
            token = message.end.resume_token
            if token:
                self.resume_token = token
            raise self._turn(error_of_reason(message.end.reason or "UPSTREAM_UNAVAILABLE", message.end.message))
        updates: Iterable[Update] = ()
        if kind == "snapshot":
            updates = self._apply(kind, message)
        else:
            self._expect(kind, message)
            if kind not in {"", "heartbeat", "drain"}:
                updates = self._apply(kind, message)
        self._remember(kind, message)
        self._check(message)
        if kind == "heartbeat" and 0 < message.heartbeat.head_sequence < self._horizon.known_for(self.behind_after):
            self.laggings += 1
            raise Reconnect(Unavailable("the stream lies behind the exchange", reason="UPSTREAM_UNAVAILABLE"))
        self._is_fresh = True
        self._backoff.reset()
        self._renewed = False
        if kind == "drain":
            raise Reconnect(None)
        return updates

    def _expect(self, kind: str, message: Any) -> None:
        """Refuse a message that does not follow the one before."""
        control = kind in {"heartbeat", "drain"}
        if not self._have_state:
            if control or self.resume_token:
                return
            self.gaps += 1
            raise Reconnect(Unavailable("content before a snapshot", reason="UPSTREAM_UNAVAILABLE"), reset=True)
        if control and (message.prev_sequence == 0 or self._resumed):
            # Nothing was said since the token; the server counts on from where it stands.
            return
        if message.prev_sequence != self.sequence:
            self.gaps += 1
            text = f"gap: the message follows {message.prev_sequence}, the last one seen was {self.sequence}"
            raise Reconnect(Unavailable(text, reason="UPSTREAM_UNAVAILABLE"), reset=True)

    def _remember(self, kind: str, message: Any) -> None:
        self._alive_time = time.monotonic()
        if kind == "snapshot" and not getattr(message.snapshot, "complete", True):
            # Nothing to resume from before the last part.
            return
        if message.sequence:
            self.sequence = message.sequence
        if kind not in {"heartbeat", "drain", ""}:
            self._have_state = True
        token = getattr(message, "resume_token", "")
        if kind in {"heartbeat", "drain"}:
            inner = getattr(message, kind)
            token = inner.resume_token or token
            if kind == "heartbeat":
                self.head_sequence = max(self.head_sequence, inner.head_sequence)
                self._reached = max(self._reached, inner.head_sequence)
        self._reached = max(self._reached, self.sequence)
        self._shown = max(self._shown, self.sequence)
        self._horizon.saw(self._reached)
        if token:
            self.resume_token = token
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        reached = max(self.sequence, self.head_sequence)
        for watcher, wanted in tuple(self._watchers.items()):
            if reached >= wanted:
                del self._watchers[watcher]
                if not watcher.done():
                    watcher.set_result(None)

    def _reset(self, error: ExchangeError | None) -> None:
        self.resets += 1
        self.resume_token = ""
        self.sequence = 0
        self._have_state = False
        history_changed = isinstance(error, DataLoss)
        if history_changed:
            self._shown = self.head_sequence = 0
            self._horizon.forget()
        self._discard(history_changed=history_changed)

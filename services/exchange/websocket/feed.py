"""A public channel: one stream of the exchange, shared by all who follow it."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.websocket import messages
from exchange.websocket.states import WrongState, state_of
from exchange.websocket.updates import Interrupted, Kind, Update, follow

if TYPE_CHECKING:
    from collections.abc import Callable

    from exchange.websocket.channels import Key
    from exchange.websocket.counts import Counts
    from exchange.websocket.limits import Limits
    from exchange.websocket.payload import Payload
    from exchange.websocket.updates import Source

_DEFECT: Final = ServiceError(ErrorReason.INTERNAL)


class Follower(Protocol):
    """Who follows a channel. None of these may wait."""

    def deliver(self, payload: Payload, *, heartbeat: bool = False) -> None:
        """Take a message."""
        ...

    def notify(self, payload: Payload) -> None:
        """Take a message that is not the channel's."""
        ...

    def end(self, error: ServiceError, resume_token: str) -> None:
        """The channel is over."""
        ...


class Feed:
    """One of them. It runs from the first follower until it is `close`d."""

    def __init__(self, key: Key, source: Source, limits: Limits, counts: Counts, over: Callable[[Feed], None]) -> None:
        """`over` is called when the exchange has ended it."""
        self.key = key
        self.followers: dict[Follower, None] = {}
        # Followers, and those who wait to become one.
        self.users = 0
        self.source = source
        self._limits = limits
        self._counts = counts
        self._over = over
        self._state = state_of(key)
        self._began = asyncio.Event()
        self._error: ServiceError | None = None
        self._last: Update | None = None
        self._snapshot: Payload | None = None
        # What was said since the last snapshot, with its place.
        self._kept: deque[tuple[int, str, Payload]] = deque(maxlen=limits.kept_messages)
        self._task = asyncio.create_task(self._run())

    async def begun(self) -> None:
        """Return once there is something to show. Raises ServiceError where there is not, or not in time."""
        try:
            async with asyncio.timeout(self._limits.start_s):
                await self._began.wait()
        except TimeoutError:
            raise self._error or ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE, retry_after_seconds=1.0) from None
        if self._last is None:
            raise self._error or _DEFECT

    def after(self, resume_token: str) -> list[Payload] | None:
        """What was said after the message of a token; None where that is not known here."""
        return self._rest(lambda _, token: token == resume_token)

    def after_sequence(self, sequence: int) -> list[Payload] | None:
        """The same after the message of a sequence."""
        return self._rest(lambda at, _: at == sequence)

    def snapshot(self) -> Payload:
        """What the channel shows now. Raises ServiceError where it is found to be wrong, and is fetched anew."""
        if self._snapshot is None:
            try:
                self._snapshot = messages.update(self.key, self._state.snapshot())
            except WrongState as error:
                structlog.get_logger("feed").error("a copy differs from the exchange", what=str(error))
                self._begin_again()
                raise ServiceError(ErrorReason.STATE_DIFFERS) from None
            self._counts.snapshots += 1
        return self._snapshot

    async def close(self) -> None:
        """Stop following the exchange."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _rest(self, is_place: Callable[[int, str], bool]) -> list[Payload] | None:
        for index in range(len(self._kept) - 1, -1, -1):
            sequence, token, _ = self._kept[index]
            if is_place(sequence, token):
                return [payload for _, _, payload in list(self._kept)[index + 1 :]]
        return None

    async def _run(self) -> None:
        try:
            async with aclosing(follow(self.source)) as items:
                async for item in items:
                    if isinstance(item, Interrupted):
                        self._interrupted(item.error)
                    else:
                        self._take(item)
        except ServiceError as error:
            self._end(error)
        except Exception:  # noqa: BLE001 - its followers must hear of it, whatever it was
            structlog.get_logger("feed").exception("a feed has failed", **self.key.header)
            self._end(_DEFECT)

    def _take(self, update: Update) -> None:
        payload = messages.update(self.key, update.body)
        heartbeat = update.kind is Kind.HEARTBEAT
        if not heartbeat:
            self._state.apply(update)
            self._snapshot = None
            if update.kind is Kind.SNAPSHOT:
                self._kept.clear()
            self._kept.append((update.sequence, update.resume_token, payload))
        self._last = update
        self._error = None
        self._began.set()
        for follower in list(self.followers):
            follower.deliver(payload, heartbeat=heartbeat)

    def _interrupted(self, error: ServiceError) -> None:
        self._error = error
        self._counts.interrupted[self.key.channel] += 1
        payload = messages.notice(error, self.key)
        for follower in list(self.followers):
            follower.notify(payload)

    def _begin_again(self) -> None:
        self._task.cancel()
        self._began.clear()
        self._last = None
        self._kept.clear()
        self._state = state_of(self.key)
        self._task = asyncio.create_task(self._run())

    def _end(self, error: ServiceError) -> None:
        self._error = error
        token = self._last.resume_token if self._last is not None else ""
        self._last = None
        self._began.set()
        self._over(self)
        for follower in list(self.followers):
            follower.end(error, token)
        self.followers.clear()


class Feeds:
    """All of them by key. One that nobody follows is kept for a while: clients come back."""

    def __init__(self, open_source: Callable[[Key], Source], limits: Limits, counts: Counts) -> None:
        self._open_source = open_source
        self._limits = limits
        self._counts = counts
        self._feeds: dict[Key, Feed] = {}
        self._lingering: dict[Key, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._feeds)

    def join(self, key: Key) -> Feed:
        """The feed of a key, kept up until as many `leave` it as have joined. Raises ServiceError TOO_MANY_STREAMS."""
        feed = self._feeds.get(key)
        if feed is None:
            if len(self._feeds) >= self._limits.feeds:
                raise ServiceError(ErrorReason.TOO_MANY_STREAMS, metadata={"limit": self._limits.feeds})
            feed = Feed(key, self._open_source(key), self._limits, self._counts, self._forget)
            self._feeds[key] = feed
        feed.users += 1
        if (timer := self._lingering.pop(key, None)) is not None:
            timer.cancel()
        return feed

    def leave(self, feed: Feed, follower: Follower) -> None:
        """One who joined goes; the last one starts the clock."""
        feed.followers.pop(follower, None)
        feed.users -= 1
        if feed.users == 0 and self._feeds.get(feed.key) is feed:
            loop = asyncio.get_running_loop()
            self._lingering[feed.key] = loop.call_later(self._limits.linger_s, self._drop, feed)

    async def close(self) -> None:
        """Close all of them."""
        for timer in self._lingering.values():
            timer.cancel()
        feeds, self._feeds = list(self._feeds.values()), {}
        await asyncio.gather(*(feed.close() for feed in feeds), *self._closing)

    def _forget(self, feed: Feed) -> None:
        if self._feeds.get(feed.key) is feed:
            del self._feeds[feed.key]
        if (timer := self._lingering.pop(feed.key, None)) is not None:
            timer.cancel()

    def _drop(self, feed: Feed) -> None:
        self._forget(feed)
        task = asyncio.create_task(feed.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

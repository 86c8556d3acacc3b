"""One channel on one connection."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.websocket import messages
from exchange.websocket.channels import TRADES
from exchange.websocket.outbox import Lane
from exchange.websocket.updates import Interrupted, Kind, follow

if TYPE_CHECKING:
    from exchange.websocket.channels import Key
    from exchange.websocket.feed import Feed, Feeds
    from exchange.websocket.outbox import Outbox
    from exchange.websocket.payload import Payload
    from exchange.websocket.updates import Source

_DEFECT: Final = ServiceError(ErrorReason.INTERNAL)


class Owner(Protocol):
    """The connection that a subscription is of."""

    def subscription_failed(self, subscription: Subscription, error: ServiceError) -> None:
        """It never began."""
        ...

    def subscription_ended(self, subscription: Subscription, error: ServiceError, resume_token: str) -> None:
        """It is over, and not because the client said so."""
        ...


class Subscription:
    """See the module; a follower of a feed, or a stream of its own where the channel is private.

    What it sends begins with `subscribed`, as the answer to the request that it was made by.
    """

    def __init__(self, key: Key, request_id: str, outbox: Outbox, owner: Owner) -> None:
        self.key = key
        self.request_id = request_id
        self._outbox = outbox
        self._owner = owner
        self._began = False
        self._feed: Feed | None = None
        self._feeds: Feeds | None = None
        self._lane = Lane(self._snapshot) if key.conflated else None
        self._task: asyncio.Task[None] | None = None

    def start_shared(self, feeds: Feeds, resume_token: str) -> None:
        """Follow a public channel."""
        self._feeds = feeds
        self._task = asyncio.create_task(self._guarded(self._join(feeds, resume_token)))

    def start_own(self, source: Source, resume_token: str, start_s: float) -> None:
        """Follow a private one; who hears nothing within `start_s` is told so."""
        self._task = asyncio.create_task(self._guarded(self._stream(source, resume_token, start_s)))

    def stop(self) -> None:
        """The client, or its connection, is done with it. Nothing of it is sent from here on."""
        if self._task is not None:
            self._task.cancel()
        if self._lane is not None:
            self._lane.drop()
        if self._feed is not None and self._feeds is not None:
            self._feeds.leave(self._feed, self)
            self._feed = None

    # --- as a follower ---

    def deliver(self, payload: Payload, *, heartbeat: bool = False) -> None:
        """Take a message of the channel."""
        if self._lane is None:
            self._outbox.put(payload)
        elif not heartbeat:
            self._outbox.put_latest(payload, self._lane)
        elif not self._outbox.waits:
            self._outbox.put(payload)

    def notify(self, payload: Payload) -> None:
        """Take a notice."""
        if not self._outbox.waits:
            self._outbox.put(payload)

    def end(self, error: ServiceError, resume_token: str) -> None:
        """The exchange has ended the channel."""
        self._owner.subscription_ended(self, error, resume_token)

    # --- how it begins and goes on ---

    async def _guarded(self, work: object) -> None:
        try:
            await work  # type: ignore[misc]  # one of the two below
        except ServiceError as error:
            self._owner.subscription_failed(self, error)
        except Exception:  # noqa: BLE001 - the client must hear of it, whatever it was
            structlog.get_logger("subscription").exception("a subscription has failed", **self.key.header)
            self._owner.subscription_failed(self, _DEFECT)

    async def _join(self, feeds: Feeds, resume_token: str) -> None:
        feed = self._feed = feeds.join(self.key)
        await feed.begun()
        rest = feed.after(resume_token) if resume_token else None
        if rest is None and resume_token:
            rest = await self._catch_up(feed, resume_token)
        if rest is None:
            rest = [feed.snapshot()]
        # From here on nothing is waited for: no message comes in between, and none twice.
        self._begin()
        for payload in rest:
            self._outbox.put(payload)
        feed.followers[self] = None

    async def _catch_up(self, feed: Feed, resume_token: str) -> list[Payload] | None:
        """What came after a token that the feed does not know: a stream of its own, until it meets the feed.

        None: the feed's snapshot is to be sent, since the exchange would send one too, or since more than the newest
        does not count. Raises ServiceError where the exchange refuses the token.
        """
        async with aclosing(follow(feed.source, resume_token)) as items:
            async for item in items:
                if isinstance(item, Interrupted):
                    if not self._began:
                        raise item.error
                    continue
                if item.kind is Kind.SNAPSHOT or self.key.channel != TRADES:
                    return None
                self._begin()
                if item.kind is not Kind.HEARTBEAT:
                    self._outbox.put(messages.update(self.key, item.body))
                rest = feed.after_sequence(item.sequence)
                if rest is not None:
                    return rest
        raise AssertionError("a stream that is followed has no end")

    async def _stream(self, source: Source, resume_token: str, start_s: float) -> None:
        token = resume_token
        interrupted: ServiceError | None = None
        try:
            async with aclosing(follow(source, resume_token)) as items, asyncio.timeout(start_s) as patience:
                async for item in items:
                    if isinstance(item, Interrupted):
                        interrupted = item.error
                        if self._began:
                            self.notify(messages.notice(item.error, self.key))
                        continue
                    patience.reschedule(None)
                    self._begin()
                    token = item.resume_token or token
                    self._outbox.put(messages.update(self.key, item.body))
        except TimeoutError:
            raise interrupted or ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE, retry_after_seconds=1.0) from None
        except ServiceError as error:
            if not self._began:
                raise
            self._owner.subscription_ended(self, error, token)

    def _begin(self) -> None:
        if not self._began:
            self._began = True
            self._outbox.put(messages.subscribed(self.request_id, self.key))

    def _snapshot(self) -> Payload:
        if self._feed is None:
            raise ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE)
        return self._feed.snapshot()

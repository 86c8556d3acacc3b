"""What comes from the exchange's streams, and how one is followed through cuts, drains and gaps."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from exchange.runtime.errors import ErrorReason, ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# Three heartbeats (docs/FEEDS.md).
SILENCE_S: Final = 15.0
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
# A stream that has lived for so long was a good one.
STEADY_S: Final = 1.0
# Failures in a row before it is said that the stream is interrupted: another instance answers at once.
SILENT_FAILURES: Final = 1

# The place is gone, the stream is not.
START_OVER: Final = frozenset(
    {ErrorReason.HISTORY_CHANGED, ErrorReason.INVALID_RESUME_TOKEN, ErrorReason.SEQUENCE_NOT_RETAINED}
)
# Passes by itself.
AGAIN: Final = frozenset(
    {
        ErrorReason.AUTH_UNAVAILABLE,
        ErrorReason.DRAINING,
        ErrorReason.INTERNAL,
        ErrorReason.JOURNAL_UNAVAILABLE,
        ErrorReason.NOT_READY,
        ErrorReason.OVERLOADED,
        ErrorReason.SEQUENCE_IN_FUTURE,
        ErrorReason.SEQUENCE_NOT_REACHED,
        ErrorReason.SLOW_CONSUMER,
        ErrorReason.UPSTREAM_TIMEOUT,
        ErrorReason.UPSTREAM_UNAVAILABLE,
    }
)
# Passes too, but who only begins should hear of it.
AGAIN_ONCE_BEGUN: Final = AGAIN | {ErrorReason.TOO_MANY_STREAMS, ErrorReason.QUOTA_EXCEEDED}


class Kind(Enum):
    """What a message is."""

    SNAPSHOT = "snapshot"
    CHANGE = "change"
    HEARTBEAT = "heartbeat"
    DRAIN = "drain"
    END = "end"


@dataclass(frozen=True, slots=True)
class Update:
    """A message of a stream. `body` is its JSON, as REST shows it.

    `reason` is why the stream ends; `partial`: a snapshot that further messages complete.
    """

    kind: Kind
    sequence: int
    prev_sequence: int
    resume_token: str
    body: dict[str, Any]
    reason: int = 0
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The stream is cut off, and every attempt fails for now; updates go on once one succeeds."""

    error: ServiceError


class Source(Protocol):
    """A stream of the exchange that can be opened again and again."""

    def open(self, resume_token: str) -> AsyncGenerator[Update, None]:
        """The messages after a token, or from a snapshot on. Raises ServiceError, while it runs too."""
        ...


async def follow(
    source: Source, resume_token: str = "", *, silence_s: float = SILENCE_S
) -> AsyncGenerator[Update | Interrupted, None]:
    """Snapshots, changes and heartbeats of a stream, each behind the one before it, whatever happens to servers.

    After a cut it goes on with the last token: without a gap, or with a snapshot, which replaces everything. Raises
    ServiceError for what does not pass: the stream was never there, or not for this caller, or is no more.
    """
    place = _Place(resume_token)
    loop = asyncio.get_running_loop()
    failures = 0
    pause = FIRST_PAUSE_S
    failure: ServiceError
    while True:
        opened = loop.time()
        try:
            async with aclosing(source.open(place.token)) as stream:
                while True:
                    async with asyncio.timeout(silence_s):
                        update = await anext(stream, None)
                    place.check(update)
                    assert update is not None
                    failures = 0
                    if loop.time() - opened > STEADY_S:
                        pause = FIRST_PAUSE_S
                    yield update
                    place.move(update)
        except TimeoutError:
            failure = ServiceError(ErrorReason.UPSTREAM_TIMEOUT, "the stream was silent")
        except ServiceError as error:
            failure = error
        place.lost(failure)
        failures += 1
        if failures == SILENT_FAILURES + 1:
            yield Interrupted(failure)
        if failures > SILENT_FAILURES or pause > FIRST_PAUSE_S:
            await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


class _Place:
    """Where a follower stands."""

    def __init__(self, token: str) -> None:
        self.token = token
        self._sequence: int | None = None
        self._partial = False

    def check(self, update: Update | None) -> None:
        """Raises ServiceError where the stream cannot be followed further: it ends here, or something is missing."""
        if update is None:
            raise ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE, "the stream was cut off")
        if update.kind is Kind.END:
            raise ServiceError(update.reason or ErrorReason.UPSTREAM_UNAVAILABLE)
        if update.kind is Kind.DRAIN:
            raise ServiceError(ErrorReason.DRAINING)
        if update.kind is not Kind.SNAPSHOT and self._sequence not in (None, update.prev_sequence):
            self.token = ""
            raise ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE, "a message is missing")

    def move(self, update: Update) -> None:
        """The update was handed on."""
        self._sequence = update.sequence
        self._partial = update.partial
        self.token = update.resume_token or self.token

    def lost(self, error: ServiceError) -> None:
        """Prepare the next attempt, or raise the error again if there is none."""
        begun = self._sequence is not None
        if self._partial:
            # Who has half a snapshot cannot tell the next one from its rest.
            raise error
        if begun and error.reason in START_OVER:
            self.token = ""
        elif error.reason not in (AGAIN_ONCE_BEGUN if begun else AGAIN):
            raise error

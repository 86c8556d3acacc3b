"""The past over the contract: refusals as reasons, and verifications as streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Final

import structlog

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.notices import HEARTBEAT_S
from exchange.runtime.request import request_context
from exchange.trading.journal.contract import Journal
from exchange.trading.past.answers import PastRefused, Progress, Refusal, Why
from exchange.trading.past.proof import Proofs
from pincex.trading.v1 import admin_replicas_pb2 as replicas_pb

BUSY_RETRY_S: Final = 1.0
"""When to ask again where as much as may be done at a time is being done: a replay takes a while."""


@contextmanager
def past_reasons(symbol: str = "") -> Iterator[None]:
    """Say over the contract why the past cannot be shown."""
    try:
        yield
    except PastRefused as refused:
        raise _error(refused.refusal, symbol) from refused


def _error(refusal: Refusal, symbol: str) -> ServiceError:
    match refusal.why:
        case Why.IN_FUTURE:
            return ServiceError(
                ErrorReason.SEQUENCE_IN_FUTURE,
                "the sequence lies beyond the head",
                metadata={"head_sequence": refusal.number},
            )
        case Why.NOT_RETAINED:
            return ServiceError(
                ErrorReason.SEQUENCE_NOT_RETAINED,
                "the sequence lies below what is retained",
                metadata={"floor_sequence": refusal.number},
            )
        case Why.UNKNOWN_SYMBOL:
            return ServiceError(
                ErrorReason.UNKNOWN_SYMBOL, "the market did not exist yet at this sequence", metadata={"symbol": symbol}
            )
        case Why.BUSY:
            return ServiceError(
                ErrorReason.OVERLOADED, metadata={"limit": refusal.text}, retry_after_seconds=BUSY_RETRY_S
            )
        case Why.UNAVAILABLE:
            return ServiceError(ErrorReason.JOURNAL_UNAVAILABLE, "the journal does not answer")
        case Why.DAMAGED:
            return ServiceError(ErrorReason.STATE_DIFFERS, f"the journal is not as it was written: {refusal.text}")


class JournalProofs:
    """Serves VerifyJournal."""

    def __init__(self, journal: Journal) -> None:
        self._proofs = Proofs(journal)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("admin")

    async def serve(self, from_sequence: int, to_sequence: int) -> AsyncIterator[replicas_pb.VerifyJournalProgress]:
        """The stream of one verification; its last progress is said again while nothing new is known.

        Raises ServiceError INVALID_FIELD, SEQUENCE_IN_FUTURE, SEQUENCE_NOT_RETAINED, OVERLOADED, all of them before the
        first message, and JOURNAL_UNAVAILABLE.
        """
        if 0 < to_sequence < from_sequence:
            raise ServiceError(
                ErrorReason.INVALID_FIELD,
                "to_sequence lies before from_sequence",
                metadata={"field": "to_sequence", "value": to_sequence},
            )
        with past_reasons():
            async with aclosing(self._proofs.run(from_sequence, to_sequence)) as steps:
                progress = await anext(steps)
                while not progress.done:
                    yield progress_message(progress)
                    following = asyncio.ensure_future(anext(steps))
                    try:
                        while not (await asyncio.wait({following}, timeout=HEARTBEAT_S))[0]:
                            yield progress_message(progress)
                    finally:
                        # Whoever leaves in between leaves no step behind that `aclose` would trip over.
                        following.cancel()
                        await asyncio.wait({following})
                    progress = following.result()
        self._record(progress)
        yield progress_message(progress)

    def _record(self, result: Progress) -> None:
        """Say in the log who verified what, and above all what was found."""
        values = {
            "operator": request_context().principal.account,
            "to_sequence": result.to_sequence,
            "frames": result.frame_count,
            "snapshots": result.snapshot_count,
        }
        if result.valid:
            self._log.info("journal verified", **values)
        else:
            self._log.error("the journal is not as it was written", difference=result.difference, **values)


def progress_message(progress: Progress) -> replicas_pb.VerifyJournalProgress:
    """A progress in the contract's form."""
    return replicas_pb.VerifyJournalProgress(
        sequence=progress.sequence,
        to_sequence=progress.to_sequence,
        frame_count=progress.frame_count,
        command_count=progress.command_count,
        snapshot_count=progress.snapshot_count,
        done=progress.done,
        valid=progress.valid,
        difference=progress.difference,
        frame_hash=progress.frame_hash,
        state_hash=progress.state_hash,
    )

"""Proving a stretch of the journal: every frame is as it was sealed, and a replay gives what is stored."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec

from exchange.trading import apart, codec, recovery
from exchange.trading.codec import UnsupportedVersion
from exchange.trading.core.engine import Engine
from exchange.trading.journal.contract import GENESIS_HASH, Frame, Journal, JournalCorrupt
from exchange.trading.past.answers import PastRefused, Progress, Why, from_line, refusing
from exchange.trading.past.retention import retained
from exchange.trading.recovery import PAUSE_COMMANDS, Recovered

PROGRESS_S: Final = 1.0
"""How often a verification says how far it is."""
MAX_PROOFS: Final = 1
"""Verifications that one instance runs at a time."""


async def prove(journal: Journal, from_sequence: int, to_sequence: int) -> AsyncGenerator[Progress]:
    """Verify the frames that hold `from_sequence` to `to_sequence`; 0 means the oldest that is retained, and the head.

    The replay begins at the newest snapshot before `from_sequence`, so what lies between is verified too. The first
    progress comes before the replay, the last one has `done`; a damage of any kind ends it there, not valid. Raises
    PastRefused for a stretch that does not exist, and when the journal's database does not answer.
    """
    proof = _Proof(journal)
    with refusing():
        try:
            async with aclosing(proof.run(from_sequence, to_sequence)) as steps:
                async for progress in steps:
                    yield progress
        except (JournalCorrupt, UnsupportedVersion) as error:
            yield proof.progress(done=True, difference=str(error))


class _Proof:
    """One verification: the core that replays, and the counts so far."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._core = Recovered(Engine(), GENESIS_HASH, codec.GENESIS_DIGEST, 0, 0)
        self._to = 0
        self._frames = 0
        self._commands = 0
        self._snapshots = 0

    @property
    def _sequence(self) -> int:
        return self._core.engine.state.sequence

    def progress(self, *, done: bool = False, valid: bool = False, difference: str = "") -> Progress:
        return Progress(
            sequence=self._sequence,
            to_sequence=self._to,
            frame_count=self._frames,
            command_count=self._commands,
            snapshot_count=self._snapshots,
            done=done,
            valid=valid,
            difference=difference,
            frame_hash=self._core.frame_hash.hex() if valid else "",
            state_hash=self._core.engine.state_hash() if valid else "",
        )

    async def run(self, from_sequence: int, to_sequence: int) -> AsyncGenerator[Progress]:
        """Raises JournalCorrupt or UnsupportedVersion at the first thing that is not as it was written."""
        await self._begin(from_sequence, to_sequence)
        yield self.progress()
        stored = await self._journal.snapshot_sequences()
        snapshots = deque(sequence for sequence in stored if self._sequence < sequence <= self._to)
        told = time.monotonic()
        pause_at = self._sequence + PAUSE_COMMANDS
        async for frame in self._journal.read(self._sequence + 1, to_sequence=self._to):
            self._replay(frame)
            while snapshots and snapshots[0] <= frame.last_sequence:
                await self._compare(snapshots.popleft(), frame)
            if self._sequence >= pause_at:
                # Whoever shares this event loop goes on meanwhile.
                await asyncio.sleep(0)
                pause_at = self._sequence + PAUSE_COMMANDS
            if time.monotonic() - told >= PROGRESS_S:
                yield self.progress()
                told = time.monotonic()
        if self._sequence < self._to:
            # A read stops where rows are missing and none follows within its bounds.
            missing = f"sequences {self._sequence + 1}..{self._to} are missing from the journal"
            raise JournalCorrupt(self._journal.shard, self._sequence + 1, missing)
        yield self.progress(done=True, valid=True)

    async def _begin(self, from_sequence: int, to_sequence: int) -> None:
        """Find the bounds, and take the core of the newest snapshot before them."""
        there = await retained(self._journal)
        first = from_sequence or there.first + 1
        self._to = to_sequence or there.head
        if max(from_sequence, self._to) > there.head:
            raise PastRefused(Why.IN_FUTURE, there.head)
        if first <= there.first or 0 < to_sequence < first:
            raise PastRefused(Why.NOT_RETAINED, there.first + 1)
        snapshot = await self._journal.latest_snapshot(first - 1)
        if snapshot is not None:
            self._core = recovery.restore(snapshot)

    def _replay(self, frame: Frame) -> None:
        core = self._core
        try:
            core.digest = recovery.replay_frame(core.engine, frame, core.digest)
        except msgspec.DecodeError as error:
            place = f"the events of the frame {frame.first_sequence}..{frame.last_sequence} cannot be read: {error}"
            raise JournalCorrupt(frame.shard, frame.first_sequence, place) from error
        core.frame_hash = frame.hash
        self._frames += 1
        self._commands += frame.last_sequence - frame.first_sequence + 1

    async def _compare(self, sequence: int, frame: Frame) -> None:
        """Raise JournalCorrupt unless the snapshot at the sequence is the state that the replay has reached."""
        if sequence != frame.last_sequence:
            place = f"a snapshot is stored in the middle of the frame {frame.first_sequence}..{frame.last_sequence}"
            raise JournalCorrupt(frame.shard, sequence, place)
        snapshot = await self._journal.latest_snapshot(sequence)
        if snapshot is None or snapshot.sequence != sequence:
            # Dropped since they were listed, which is nobody's fault.
            return
        stored = recovery.restore(snapshot)
        replayed = self._core.engine.state_hash()
        if snapshot.state_hash != replayed:
            difference = f"the snapshot has the state {snapshot.state_hash[:16]}, a replay gives {replayed[:16]}"
            raise JournalCorrupt(frame.shard, sequence, difference)
        if stored.digest != self._core.digest:
            raise JournalCorrupt(frame.shard, sequence, "the snapshot has another digest than its frame")
        self._snapshots += 1


class Proofs:
    """The verifications of one instance: one at a time, beside the process where the journal is a database."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._running = 0

    async def run(self, from_sequence: int, to_sequence: int) -> AsyncGenerator[Progress]:
        """As `prove`; closing the iterator ends the verification. Raises PastRefused and ApartFailed."""
        if self._running >= MAX_PROOFS:
            raise PastRefused(Why.BUSY, text=f"{MAX_PROOFS} verification at a time")
        self._running += 1
        try:
            async with aclosing(self._steps(from_sequence, to_sequence)) as steps:
                async for progress in steps:
                    if not progress.done:
                        yield progress
        finally:
            self._running -= 1
        # Told when the place is free again: whoever has the result may ask anew at once.
        yield progress

    def _steps(self, from_sequence: int, to_sequence: int) -> AsyncGenerator[Progress]:
        if self._journal.dsn is None:
            return prove(self._journal, from_sequence, to_sequence)
        return self._apart(from_sequence, to_sequence)

    async def _apart(self, from_sequence: int, to_sequence: int) -> AsyncGenerator[Progress]:
        dsn = self._journal.dsn
        assert dsn is not None
        arguments = (str(self._journal.shard), str(from_sequence), str(to_sequence))
        async with aclosing(apart.lines("exchange.trading.past", "verify", *arguments, dsn=dsn)) as printed:
            async for line in printed:
                answer = from_line(line)
                assert isinstance(answer, Progress)
                yield answer

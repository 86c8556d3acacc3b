"""Planted bugs: each breaks one thing on purpose, in a world and nowhere else, and the simulation has to find it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from exchange.trading import codec, recovery
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import Result
from exchange.trading.core.memory import refusal
from exchange.trading.feeds.hub import Hub
from exchange.trading.journal.contract import Frame, StoredSnapshot
from exchange.trading.replication import uplink
from exchange.trading.replication.follower import Follower
from exchange.trading.replication.leadership import Leadership
from exchange.trading.replication.uplink import Uplink
from exchange.trading.sequencer import Sequencer

if TYPE_CHECKING:
    from tests.simulation.world import World

Plant = Callable[["World"], contextlib.AbstractContextManager[Any]]

_DUMPED_BOOKS = 11
"""Where a dump of the state has the order of each book."""


@contextlib.contextmanager
def no_fencing(world: World) -> Iterator[None]:
    """The database takes appends under any epoch."""
    world.database.fencing = False
    yield


@contextlib.contextmanager
def no_new_epoch(world: World) -> Iterator[None]:
    """Whoever takes the lease gets the epoch of the one before."""
    world.database.raises_epoch = False
    yield


def answer_before_commit(_world: World) -> contextlib.AbstractContextManager[Any]:
    """Results are let out as soon as the core has them."""

    def release(
        self: Sequencer, _sequence: int, future: asyncio.Future[list[Result]], results: list[Result], count: int
    ) -> None:
        self._queued -= count
        if not future.done():
            future.set_result(results)

    return patch.object(Sequencer, "_release_later", release)


def apply_repeats(_world: World) -> contextlib.AbstractContextManager[Any]:
    """Nobody asks the core whether it knows a request already."""
    honest = Sequencer._apply

    class Forgetful:
        """The engine without its memory of requests."""

        def __init__(self, engine: Engine) -> None:
            self._engine = engine

        def recall(self, _command: Command) -> None:
            return None

        def __getattr__(self, name: str) -> Any:
            return getattr(self._engine, name)

    def apply(self: Sequencer, submitted: list[Command]) -> list[Result]:
        engine = self.engine
        self.engine = Forgetful(engine)  # type: ignore[assignment]
        try:
            return honest(self, submitted)
        finally:
            self.engine = engine

    return patch.object(Sequencer, "_apply", apply)


def skip_frames(world: World) -> contextlib.AbstractContextManager[Any]:
    """A follower loses a pushed frame now and then, and no chain is checked."""
    rng = world.rng("planted")

    def apply_pushed(self: Follower) -> None:
        pushed, self._pushed = self._pushed, []
        for frame in pushed:
            if frame.last_sequence > self.committed_sequence and rng.random() > 0.05:
                apply(self, frame)

    def apply(self: Follower, frame: Frame) -> None:
        self.committed_sequence, self.committed_hash = frame.first_sequence - 1, frame.prev_hash
        honest(self, frame)

    honest = Follower.apply
    return patch.multiple(Follower, _apply_pushed=apply_pushed, apply=apply)


def lose_priority(_world: World) -> contextlib.AbstractContextManager[Any]:
    """A core that was restored from a snapshot has the orders of each book in the wrong order; its hash is not looked at."""

    def restore(snapshot: StoredSnapshot) -> recovery.Recovered:
        dumped = codec.decode_snapshot(snapshot.state)
        dumped[_DUMPED_BOOKS] = [[side[::-1] for side in sides] for sides in dumped[_DUMPED_BOOKS]]
        return recovery.Recovered(Engine.restore(dumped), snapshot.frame_hash, snapshot.digest, snapshot.sequence, 0)

    return patch.object(recovery, "restore", restore)


def forget_at_hand_over(_world: World) -> contextlib.AbstractContextManager[Any]:
    """What waits while leadership is handed over is answered as if it had been done."""
    honest = Sequencer.take_unapplied

    def take(self: Sequencer) -> list[Any]:
        state = self.engine.state
        for commands, future in honest(self):
            if not future.done():
                future.set_result([refusal(state, command, 0) for command in commands])
        return []

    return patch.object(Sequencer, "take_unapplied", take)


def read_dirty(_world: World) -> contextlib.AbstractContextManager[Any]:
    """A leader's reads do not wait for what they have seen to be durable."""
    return patch.object(Sequencer, "barrier", lambda _self: None)


def resend_everything(_world: World) -> contextlib.AbstractContextManager[Any]:
    """A follower sends again what the lost link may have brought over, whether that is safe or not."""
    return patch.object(uplink, "is_repeatable", lambda _command: True)


def tell_an_old_head(_world: World) -> contextlib.AbstractContextManager[Any]:
    """A leader whose lease has run out tells followers its own head as the newest. Found by this simulation."""
    return patch.object(Leadership, "_surely_leads", lambda _self: True)


def read_on_in_another_history(_world: World) -> contextlib.AbstractContextManager[Any]:
    """Streams go on where a core was made anew after a fail-over of the database. Found by this simulation."""
    honest = Hub.reset

    def reset(self: Hub, head_sequence: int, head_hash: bytes) -> None:
        cores = self.cores
        honest(self, head_sequence, head_hash)
        self.cores = cores

    return patch.object(Hub, "reset", reset)


def swallow_cancellation(_world: World) -> contextlib.AbstractContextManager[Any]:
    """A task that waits for the leader's head survives being cancelled, as `wait_for` made it. Found by this simulation."""

    async def leader_head(self: Uplink) -> int | None:
        if not self.linked:
            return None
        future: asyncio.Future[int] = self._loop.create_future()
        self._head_asked.append(future)
        self._something.set()
        try:
            return await asyncio.wait_for(future, self.limits.head_wait_s)
        except Exception:  # noqa: BLE001 - as it was
            return None

    return patch.object(Uplink, "leader_head", leader_head)


@dataclass(frozen=True, slots=True)
class Planted:
    """A bug, the seeds within which it has to be found, and the faults to make where a mixture would take too long."""

    plant: Plant
    within_seeds: int
    kinds: tuple[str, ...] = ()


PLANTED: dict[str, Planted] = {
    "no fencing": Planted(no_fencing, 20, ("pause", "part_from_database")),
    "lease without a new epoch": Planted(no_new_epoch, 5),
    "answer before the commit": Planted(answer_before_commit, 5),
    "repeats applied twice": Planted(apply_repeats, 5),
    "a follower skips a frame": Planted(skip_frames, 10),
    "priority lost in a snapshot": Planted(lose_priority, 15),
    "queue answered at a hand-over": Planted(forget_at_hand_over, 20, ("hand_over",)),
    "dirty reads": Planted(read_dirty, 10),
    "resend of what is not repeatable": Planted(resend_everything, 20, ("cut",)),
    "an old head told as the newest": Planted(tell_an_old_head, 60, ("part_from_database",)),
    "streams read on in another history": Planted(read_on_in_another_history, 20, ("fail_over",)),
    "a cancellation swallowed": Planted(swallow_cancellation, 60),
}

"""Watches the pair and decides: who is the primary, and whether commits wait for the standby.

It serves one machine, where the supervisor that runs it is the parent of both servers and can end either for certain.
Between machines that takes a quorum and a fence of another kind: production leaves it to Patroni or CloudNativePG.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from exchange.stack.errors import StackError
from exchange.stack.postgresql import actions
from exchange.stack.postgresql.probe import UNREACHABLE, Answer, Look, Probe
from exchange.stack.postgresql.state import NUMBERS, Standby

if TYPE_CHECKING:
    from exchange.stack.postgresql.cluster import Cluster

WENT_WRONG: tuple[type[Exception], ...] = (StackError, *UNREACHABLE)

PROBE_INTERVAL_S = 0.1
# A server is down after so many failed looks in a row.
DOWN_AFTER = 3
# A primary without a standby in sync is killed only after so many silent looks: a restart is no help against load.
HANGS_AFTER = 10
# A standby that does not stream for so long while the primary serves never will: the log that it needs is gone.
CUT_OFF_AFTER_S = 30.0
# From the first answer of the primary until a standby that never showed up counts as lost.
START_GRACE_S = 10.0
ARM_AGAIN_AFTER_S = 2.0


class Action(Enum):
    """What to do now."""

    NOTHING = "nothing"
    FAIL_OVER = "fail over"
    FINISH_PROMOTION = "finish promotion"
    RESTART_PRIMARY = "restart primary"
    DEGRADE = "degrade"
    ARM = "arm"
    COPY_AGAIN = "copy again"


@dataclass(frozen=True, slots=True)
class Seen:
    """The pair as the last looks show it; `standby` is what the state file says of it.

    `unpromoted`: the primary answers as a standby. `cut_off`: the standby should stream, and has not for long.
    """

    standby: Standby
    primary_down: bool = False
    primary_hangs: bool = False
    unpromoted: bool = False
    standby_answers: bool = True
    standby_down: bool = False
    streaming: bool = True
    commits_stuck: bool = False
    cut_off: bool = False


def decide(seen: Seen) -> Action:
    """The one action that the pair needs now."""
    if seen.unpromoted:
        return Action.FINISH_PROMOTION
    if seen.primary_down:
        # A standby that is not in sync may lack what was acknowledged: better wait for the primary's restart.
        if seen.standby is Standby.IN_SYNC and seen.standby_answers:
            return Action.FAIL_OVER
        return Action.RESTART_PRIMARY if seen.primary_hangs else Action.NOTHING
    if seen.standby is Standby.IN_SYNC:
        return Action.DEGRADE if seen.standby_down or seen.commits_stuck else Action.NOTHING
    if seen.standby is Standby.FOLLOWING:
        if seen.streaming:
            return Action.ARM
        return Action.COPY_AGAIN if seen.cut_off else Action.NOTHING
    return Action.NOTHING


@dataclass(slots=True)
class _Health:
    """One server's last looks; `failed` and `silent` count those in a row, `seen` is whether one ever went well."""

    failed: int = 0
    silent: int = 0
    seen: bool = False

    def note(self, look: Look, *, well: bool) -> None:
        self.failed = 0 if well else self.failed + 1
        self.silent = self.silent + 1 if look.answer is Answer.SILENT else 0
        self.seen = self.seen or well


class Controller:
    """Runs as long as the pair does."""

    def __init__(self, cluster: Cluster) -> None:
        """Looks at nothing yet."""
        self._cluster = cluster
        nodes = cluster.nodes
        first, second = NUMBERS
        self._probes = {first: Probe(nodes[first], nodes[second]), second: Probe(nodes[second], nodes[first])}
        self._health = {number: _Health() for number in NUMBERS}
        self._grace_until = float("inf")
        self._not_streaming_since: float | None = None
        self._arm_at = 0.0
        self._complaint = ""

    async def run(self) -> None:
        """Looks, decides and acts until it is cancelled."""
        try:
            while True:
                began = time.monotonic()
                try:
                    await self._turn()
                except WENT_WRONG as error:
                    self._complain(str(error) or repr(error))
                # A look that was waited for in vain has taken its time already.
                await asyncio.sleep(max(0.0, began + PROBE_INTERVAL_S - time.monotonic()))
        finally:
            for probe in self._probes.values():
                probe.drop()

    async def _turn(self) -> None:
        state = self._cluster.state
        primary, standby = await asyncio.gather(self._probes[state.primary].look(), self._probes[state.other].look())
        seen = self._note(primary, standby)
        if self._cluster.standby_lost != seen.standby_down:
            self._cluster.standby_lost = seen.standby_down
            await self._cluster.notify()
        await self._act(decide(seen))

    def _note(self, primary: Look, standby: Look) -> Seen:
        now = time.monotonic()
        cluster, state = self._cluster, self._cluster.state
        first, second = self._health[state.primary], self._health[state.other]
        well = primary.answer is Answer.WELL
        serves = well and not primary.in_recovery
        follows = standby.answer is Answer.WELL and standby.in_recovery
        first.note(primary, well=serves)
        # What it streams can be told only while the primary answers.
        second.note(standby, well=follows and (primary.streaming or not serves))
        if serves and self._grace_until == float("inf"):
            self._grace_until = now + START_GRACE_S
        if primary.streaming or not serves or state.standby is not Standby.FOLLOWING:
            self._not_streaming_since = None
        elif self._not_streaming_since is None:
            self._not_streaming_since = now
        return Seen(
            standby=state.standby,
            # Before the first answer it may recover for long; its instance waits for it. An exit needs no third look.
            primary_down=first.seen and (first.failed >= DOWN_AFTER or state.primary in cluster.ended),
            primary_hangs=first.silent >= HANGS_AFTER,
            unpromoted=well and primary.in_recovery,
            standby_answers=follows,
            standby_down=second.failed >= DOWN_AFTER and (second.seen or now > self._grace_until),
            streaming=primary.streaming and now >= self._arm_at,
            commits_stuck=primary.stuck,
            cut_off=self._not_streaming_since is not None and now - self._not_streaming_since > CUT_OFF_AFTER_S,
        )

    async def _act(self, action: Action) -> None:
        cluster = self._cluster
        match action:
            case Action.FAIL_OVER:
                await actions.fail_over(cluster)
                self._health[cluster.state.primary] = _Health(seen=True)
                self._health[cluster.state.other] = _Health()
            case Action.FINISH_PROMOTION:
                await actions.finish_promotion(cluster)
            case Action.RESTART_PRIMARY:
                await actions.restart_primary(cluster)
                self._health[cluster.state.primary].silent = 0
            case Action.DEGRADE:
                await actions.degrade(cluster)
            case Action.ARM:
                if not await actions.arm(cluster):
                    self._arm_at = time.monotonic() + ARM_AGAIN_AFTER_S
            case Action.COPY_AGAIN:
                await actions.copy_again(cluster)
                self._not_streaming_since = None
            case Action.NOTHING:
                return
        self._complaint = ""

    def _complain(self, text: str) -> None:
        """Once for each trouble: a turn that fails is made again at once."""
        if text != self._complaint:
            self._complaint = text
            self._cluster.say(f"the pair of PostgreSQL servers: {text}")

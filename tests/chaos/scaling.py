"""One engine to several and back, under load from before and from the height of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from tests.chaos.monkey import fresh_run
from tests.chaos.streams import Counts, Streams
from tests.integration.journal.waiting import until
from tests.integration.recovery.edge import AtTheEdge
from tests.integration.recovery.load import SESSION_ACCOUNT, Load
from tests.integration.recovery.proof import prove


@dataclass(frozen=True, slots=True)
class Scaled:
    """What it took; seconds throughout."""

    elapsed_s: float
    longest_wait_s: float
    answers: int
    attached_again: int
    resent: int
    streams: dict[str, Counts]

    @property
    def moved(self) -> int:
        """Connections that were made again, since their engine went away."""
        return self.attached_again + sum(one.reconnects for one in self.streams.values())


async def scale_under_load(exchange: AtTheEdge, seed: int, *, most: int, answers: int, pause_s: float) -> Scaled:
    """1 -> `most` -> 1; `answers` must come after each step. Then everything is proved, and any error to a caller, or a feed
    that leaves something out, fails.
    """
    await exchange.scale(1)
    await exchange.until_whole(1)
    loads = [_load(exchange, seed, pause_s)]
    streams = [Streams(exchange, SESSION_ACCOUNT)]
    await loads[0].start()
    await streams[0].start()
    began = time.monotonic()
    await _scaled(exchange, most, loads, streams, answers)
    # These are spread over the engines that go away again.
    loads.append(_load(exchange, seed + 1, pause_s))
    streams.append(Streams(exchange, SESSION_ACCOUNT))
    await loads[1].start()
    await streams[1].start()
    await _scaled(exchange, 1, loads, streams, answers)
    ended = time.monotonic()
    for load in loads:
        await load.stop()
    longest = max(load.longest_wait(began, ended) for load in loads)
    for stream in streams:
        await stream.finish()
    proved = [await prove(exchange, load) for load in loads]
    sessions = [session for load in loads for session in load.opened]
    return Scaled(
        ended - began,
        longest,
        sum(one.answers for one in proved),
        sum(session.reconnects for session in sessions),
        sum(session.resent for session in sessions),
        streams[1].counts,
    )


def _load(exchange: AtTheEdge, seed: int, pause_s: float) -> Load:
    return Load(exchange, seed, pause_s=pause_s, patient=True, sessions=2, run=fresh_run())


async def _scaled(exchange: AtTheEdge, engines: int, loads: list[Load], streams: list[Streams], answers: int) -> None:
    await exchange.scale(engines)
    await exchange.until_whole(engines)
    for load in loads:
        await until(partial(_has_answered, load, streams, load.answered + answers))


def _has_answered(load: Load, streams: list[Streams], count: int) -> bool:
    load.check()
    for stream in streams:
        stream.check()
    return load.answered > count

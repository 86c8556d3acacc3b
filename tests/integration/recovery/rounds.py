"""Kill rounds: an engine under load, killed at random moments, again and again: the only one, or whichever leads."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from functools import partial

from tests.integration.journal.waiting import until
from tests.integration.recovery.edge import AtTheEdge
from tests.integration.recovery.engine_process import EngineProcess
from tests.integration.recovery.load import Load

LEAST_UNDER_LOAD_S = 0.05
MOST_UNDER_LOAD_S = 1.0
SHARE_KILLED_AT_START = 0.2
"""How often the next process dies too, while it starts, recovers or has just begun to serve."""

SHARE_OF_SUCCESSORS = 0.2
"""How often the next leader dies too, while it takes over or has just done so."""


@dataclass(slots=True)
class Round:
    """One death, or two in a row. Seconds from the last SIGKILL: until all is as before, until an order that was asked after
    it is answered; and the longest that any caller waited for an answer meanwhile.
    """

    answered_before: int
    in_flight: int
    serving_after_s: float = 0.0
    answering_after_s: float = 0.0
    longest_wait_s: float = 0.0


@dataclass(slots=True)
class Rounds:
    """All of a campaign."""

    seed: int
    rounds: list[Round] = field(default_factory=list)


async def kill_rounds(engine: EngineProcess, load: Load, count: int, seed: int) -> Rounds:
    """Kill and restart `count` times, each time after a random while in which answers came."""
    rng = random.Random(f"{seed}-kills")
    done = Rounds(seed)
    for _ in range(count):
        await until(partial(_progress, load, load.answered, load.answered_in_session))
        await asyncio.sleep(rng.uniform(LEAST_UNDER_LOAD_S, MOST_UNDER_LOAD_S))
        round_ = Round(load.answered, len(load.unanswered))
        engine.kill()
        if rng.random() < SHARE_KILLED_AT_START:
            engine.spawn()
            await asyncio.sleep(rng.uniform(LEAST_UNDER_LOAD_S, MOST_UNDER_LOAD_S))
            engine.kill()
        load.note_kill()
        await engine.start()
        round_.serving_after_s = time.monotonic() - load.killed_at
        await until(lambda: _resumed(load))
        round_.answering_after_s = load.resumed_at - load.killed_at
        done.rounds.append(round_)
    return done


async def leader_rounds(exchange: AtTheEdge, load: Load, count: int, seed: int, engines: int) -> Rounds:
    """Kill whoever leads, `count` times, each time when all `engines` are there and answers have come for a while."""
    rng = random.Random(f"{seed}-leaders")
    done = Rounds(seed)
    for _ in range(count):
        await until(partial(_progress, load, load.answered, load.answered_in_session))
        await asyncio.sleep(rng.uniform(LEAST_UNDER_LOAD_S, MOST_UNDER_LOAD_S))
        round_ = Round(load.answered, len(load.unanswered))
        began = time.monotonic()
        victim = await _kill_leader(exchange)
        if rng.random() < SHARE_OF_SUCCESSORS:
            await _kill_leader(exchange, other_than=victim)
        load.note_kill()
        await until(lambda: _resumed(load))
        round_.answering_after_s = load.resumed_at - load.killed_at
        await exchange.until_whole(engines)
        round_.serving_after_s = time.monotonic() - load.killed_at
        round_.longest_wait_s = load.longest_wait(began, time.monotonic())
        done.rounds.append(round_)
    return done


async def _kill_leader(exchange: AtTheEdge, other_than: str = "") -> str:
    """SIGKILL to the engine that leads; its name."""
    leader = ""

    async def known() -> bool:
        nonlocal leader
        leader = await exchange.leader()
        return leader not in {"", other_than}

    await until(known)
    exchange.stack.kill(leader)
    return leader


def _resumed(load: Load) -> bool:
    load.check()
    return load.resumed_at > 0.0


def _progress(load: Load, answered: int, in_session: int) -> bool:
    """Whether the callers and the session are at work."""
    load.check()
    return load.answered > answered and load.answered_in_session > in_session

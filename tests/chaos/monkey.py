"""Chaos for a given time and seed, under load; and the verdict at its end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.chaos.faults import FAULTS, FOLLOWER_FAULTS, Zoo
from tests.chaos.streams import Counts, Streams
from tests.integration.journal.waiting import until
from tests.integration.recovery.edge import AtTheEdge
from tests.integration.recovery.load import SESSION_ACCOUNT, Load
from tests.integration.recovery.proof import Proved, prove

SHARE_OF_PAIRS = 0.25
"""How often a second fault strikes at the same time."""

SECOND_FAULTS = ("kill the leader", "kill a follower", "restart the leader")

HEAL_DEADLINE_S = 90.0
QUIET_S = 1.0
"""Between two faults, at most."""


@dataclass(frozen=True, slots=True)
class Options:
    """Of one run. `pause_s` sets the load: each caller rests so long after each command, a session after eight."""

    seconds: float
    seed: int
    engines: int = 3
    pause_s: float = 0.05


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault: when it began, in seconds from the start; how long until all was well again, and the longest that any
    caller waited for an answer meanwhile. `paired`: another struck at the same time.
    """

    kind: str
    target: str
    at_s: float
    healed_after_s: float
    longest_wait_s: float
    paired: bool


@dataclass(slots=True)
class Outcome:
    """What a run did and what it found; there is none where a promise was broken."""

    options: Options
    struck: list[Struck] = field(default_factory=list)
    commands: int = 0
    reconnects: int = 0
    resent: int = 0
    streams: dict[str, Counts] = field(default_factory=dict)
    proved: Proved | None = None
    replicas: int = 0
    sequence: int = 0
    state_hash: str = ""


def fresh_run() -> str:
    """What ids of a load begin with that is not the first one on its exchange."""
    return f"c{time.time_ns() // 1_000_000:x}-"


async def run(exchange: AtTheEdge, options: Options, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Load, strike, heal, and prove. Raises AssertionError for a broken promise, TimeoutError for one that does not heal,
    ExchangeError for an error that reached a caller.
    """
    outcome = Outcome(options)
    zoo = Zoo(exchange, options.engines, random.Random(f"{options.seed}-chaos"))
    await exchange.scale(options.engines)
    await until(zoo.healed, HEAL_DEADLINE_S)
    load = Load(
        exchange,
        options.seed,
        pause_s=options.pause_s,
        patient=True,
        sessions=2,
        run=fresh_run(),
    )
    streams = Streams(exchange, SESSION_ACCOUNT)
    await load.start()
    await streams.start()
    await _strike_on(zoo, load, streams, outcome, say)
    say("no more faults; the load stops, and all is compared")
    await load.stop()
    outcome.commands = len(load.asked)
    outcome.reconnects = sum(session.reconnects for session in load.opened)
    outcome.resent = sum(session.resent for session in load.opened)
    await _judge(exchange, load, streams, outcome)
    return outcome


async def _strike_on(zoo: Zoo, load: Load, streams: Streams, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Fault after fault until the time is over. All kinds come in turn, in an order of the seed's."""
    began = time.monotonic()
    kinds: list[str] = []
    while time.monotonic() - began < outcome.options.seconds:
        struck_at = time.monotonic()
        chosen = _next_kinds(zoo, kinds)
        targets = await asyncio.gather(*(FAULTS[kind](zoo) for kind in chosen))
        await until(zoo.healed, HEAL_DEADLINE_S)
        await until(partial(_answers, load, streams, load.answered))
        now = time.monotonic()
        for kind, target in zip(chosen, targets, strict=True):
            wait_s = load.longest_wait(struck_at, now)
            one = Struck(kind, target, struck_at - began, now - struck_at, wait_s, paired=len(chosen) > 1)
            outcome.struck.append(one)
            say(describe(one))
        await asyncio.sleep(zoo.rng.uniform(0.0, QUIET_S))


def _next_kinds(zoo: Zoo, kinds: list[str]) -> list[str]:
    """The next fault, at times with another at the same moment."""
    if not kinds:
        kinds += [kind for kind in FAULTS if zoo.engines > 1 or kind not in FOLLOWER_FAULTS]
        zoo.rng.shuffle(kinds)
    kind = kinds.pop()
    if zoo.engines > 2 and kind != "scale" and zoo.rng.random() < SHARE_OF_PAIRS:
        return [kind, zoo.rng.choice(SECOND_FAULTS)]
    return [kind]


def _answers(load: Load, streams: Streams, answered: int) -> bool:
    load.check()
    streams.check()
    return load.answered > answered


async def _judge(exchange: AtTheEdge, load: Load, streams: Streams, outcome: Outcome) -> None:
    """Replicas, callers, feeds and the journal agree, or AssertionError."""
    await streams.finish()
    outcome.streams = streams.counts
    outcome.proved = await prove(exchange, load)
    compared = await exchange.compared(outcome.options.engines)
    outcome.replicas, outcome.sequence = len(compared["replicas"]), int(compared["sequence"])
    outcome.state_hash = str(compared["replicas"][0]["state_hash"])
    async with exchange.client() as client:
        verification = [step async for step in client.admin.verify_journal(0, outcome.sequence)][-1]
    assert verification.valid, verification.difference
    assert verification.state_hash == outcome.state_hash, "the replay of the journal is not what the replicas hold"


def describe(one: Struck) -> str:
    """A line about one fault."""
    also = "(of two) " if one.paired else ""
    return (
        f"{one.at_s:6.1f} s  {also}{one.kind}: {one.target}; longest wait {one.longest_wait_s:.2f} s, "
        f"all well after {one.healed_after_s:.1f} s"
    )

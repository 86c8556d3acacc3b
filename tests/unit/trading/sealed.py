"""Commands as sealed frames, the way a sequencer would have left them, with no sequencer in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from exchange.trading import codec
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.journal.contract import Frame
from exchange.trading.journal.frame import GENESIS_HASH


def frames_of(
    commands: list[Command],
    *,
    seed: int = 1,
    size: int = 9,
    time_of: Callable[[int], int] = lambda first: first * 1_000,
) -> list[Frame]:
    """Frames of 1 to `size` commands; `time_of` gives a frame's time from its first sequence."""
    rng = random.Random(seed)
    engine, frames = Engine(), []
    digest, previous = codec.GENESIS_DIGEST, GENESIS_HASH
    rest = list(commands)
    while rest:
        taken, rest = rest[: (count := rng.randint(1, size))], rest[count:]
        first = engine.state.sequence + 1
        time_ns = max(time_of(first), engine.state.time_ns)
        events = [engine.apply(first + offset, time_ns, command) for offset, command in enumerate(taken)]
        frame = seal(first, time_ns, taken, events, digest, previous, rules_version=engine.state.rules_version)
        digest, previous = frame.digest, frame.hash
        frames.append(frame)
    return frames


def seal(
    first: int,
    time_ns: int,
    taken: list[Command],
    events: list[Any],
    digest: bytes,
    previous: bytes,
    *,
    rules_version: int = 1,
) -> Frame:
    """One frame of format 1."""
    encoded = codec.encode_events(events)
    return Frame.seal(
        shard=0,
        first_sequence=first,
        last_sequence=first + len(taken) - 1,
        epoch=1,
        time_ns=time_ns,
        commands=codec.encode_commands(taken),
        events=encoded,
        digest=codec.next_digest(digest, encoded),
        prev_hash=previous,
        format_version=1,
        rules_version=rules_version,
    )

"""Histories for tests of what reads a journal: commands of a market at work, and journals made of frames."""

from __future__ import annotations

import random
from typing import Any

from exchange.trading.bootstrap import development_commands
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import Command
from exchange.trading.journal.contract import Frame
from exchange.trading.journal.frame import GENESIS_HASH
from exchange.trading.journal.memory import MemoryJournal, MemoryStore
from tests.unit.trading.sequencer_rig import order


def flow(seed: int, count: int = 300) -> list[Command]:
    """A market at work: orders that cross, cancels, repeats of ids left out as the sequencer does."""
    rng = random.Random(seed)
    commands = development_commands()
    for number in range(count):
        side = rng.choice([1, 2])
        price = 5_000_000 + rng.randint(-30, 30) * 100
        account = rng.choice(["demo", "maker"])
        match rng.randint(0, 9):
            case 0 if number > 10:
                commands.append(
                    cmd.cancel(account, client_order_id=f"{rng.randrange(number)}", request_id=f"x{number}")
                )
            case 1:
                commands.append(cmd.credit("demo", 2, rng.randint(1, 10**9), request_id=f"c{number}"))
            case _:
                lots = rng.randint(1, 50) * 10
                commands.append(order(f"{number}", account=account, side=side, price=price, lots=lots))
    return commands


def journal_of(frames: list[Frame]) -> MemoryJournal:
    """A journal that holds these frames."""
    return MemoryJournal(MemoryStore(epoch=1, frames=list(frames)))


def resealed(frames: list[Frame], at: int, **changes: Any) -> list[Frame]:
    """The frames with one changed, and all hashes from there on made right again: what a wrong writer would leave."""
    made = list(frames[:at])
    for place, frame in enumerate(frames[at:]):
        fields = {name: getattr(frame, name) for name in Frame.__slots__ if name != "hash"}
        previous = made[-1].hash if made else GENESIS_HASH
        made.append(Frame.seal(**{**fields, **(changes if place == 0 else {}), "prev_hash": previous}))
    return made

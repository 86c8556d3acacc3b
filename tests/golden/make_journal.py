"""Writes the golden journal of some rules (`make_journal 2`); see README.md for when that may be done."""

import asyncio
import sys
from hashlib import sha256

from exchange.trading import recovery
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import Command
from exchange.trading.core.engine import Engine
from exchange.trading.journal.contract import Frame
from exchange.trading.journal.memory import MemoryJournal, MemoryStore
from tests.golden import golden_commands
from tests.golden.golden_file import Header, golden, write
from tests.unit.trading.sealed import frames_of


def applied_once(commands: list[Command]) -> list[Command]:
    """Leave out what a sequencer would answer from memory; numbers in a session are for one that is open."""
    engine, kept = Engine(), []
    for command in commands:
        if engine.recall(command) is None:
            sequence = engine.state.sequence + 1
            engine.apply(sequence, golden_commands.time_of(sequence), command)
            kept.append(command)
    assert len(kept) == len(commands), "the golden commands repeat no id"
    return kept


async def main(rules: int) -> None:
    commands = applied_once(golden_commands.commands(rules))
    frames: list[Frame] = frames_of(commands, size=6, time_of=golden_commands.time_of)
    engine = (await recovery.recover(MemoryJournal(MemoryStore(frames=frames)))).engine
    symbols = sorted(engine.state.market_index)
    events = sha256(b"".join(frame.events for frame in frames)).hexdigest()
    books = {symbol: engine.book_hash(symbol) for symbol in symbols}
    write(golden(rules), Header(engine.state.sequence, engine.state_hash(), books, events), frames)
    kinds = sorted({command[cmd.C_KIND] for command in commands})
    print(f"{golden(rules).name}: {len(frames)} frames, {len(commands)} commands of {len(kinds)} kinds")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

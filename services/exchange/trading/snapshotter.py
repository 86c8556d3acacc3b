"""`python -m exchange.trading.snapshotter`: stores a snapshot of the journal's head, and prints its sequence.

A process of its own, so that the leader is not held up: it starts from the newest snapshot, replays the tail, and so
proves the record once more on the way. `store_apart` is how the leader starts one.
"""

from __future__ import annotations

import sys

from exchange.runtime import process
from exchange.runtime.config import Environment, Secret
from exchange.trading import apart
from exchange.trading.inspection import Inspector
from exchange.trading.journal.postgres import PostgresJournal


async def store_apart(dsn: Secret) -> int:
    """Have a process of its own store a snapshot; answers its sequence. Raises ApartFailed with what it said."""
    printed = [line async for line in apart.lines("exchange.trading.snapshotter", dsn=dsn)]
    return int(printed[-1])


async def main() -> None:
    """Store one snapshot. DATABASE_URL says where."""
    url = Environment.load().secret("DATABASE_URL")
    journal = await PostgresJournal.open(url.reveal())
    try:
        sequence = await Inspector(journal, journal.shard).snapshot()
    finally:
        await journal.close()
    sys.stdout.write(f"{sequence}\n")


if __name__ == "__main__":
    apart.idle_only()
    process.run(main)

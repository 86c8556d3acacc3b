"""`python -m exchange.trading.snapshotter`: stores a snapshot of the journal's head, and prints its sequence.

A process of its own, so that the leader is not held up: it starts from the newest snapshot, replays the tail, and so
proves the record once more on the way.
"""

from __future__ import annotations

import os
import sys

from exchange.runtime import process
from exchange.runtime.config import Environment
from exchange.trading.inspection import Inspector
from exchange.trading.journal.postgres import PostgresJournal


async def main() -> None:
    """Store one snapshot. DATABASE_URL says where."""
    url = Environment.load().secret("DATABASE_URL")
    journal = await PostgresJournal.open(url.reveal())
    try:
        sequence = await Inspector(journal, 0).snapshot()
    finally:
        await journal.close()
    sys.stdout.write(f"{sequence}\n")


if __name__ == "__main__":
    # Only on processor time that nobody else wants: a snapshot can wait, orders can not.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    process.run(main)

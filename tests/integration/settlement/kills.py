"""A process of settlement that is killed again and again while an engine trades."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.integration.settlement.settlement_app import assert_whole, rows
from tests.integration.trading.engine_app import eventually

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.postgres_fixture import Database

DEADLINE_S = 60.0


@dataclass
class Kills:
    """What was seen: from each start to the first batch that it wrote, in seconds, and how far the ledger was at each kill."""

    settling_after_s: list[float] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    early: int = 0


async def kill_rounds(
    variables: Mapping[str, str],
    database: Database,
    repository: Path,
    kills: int,
    rng: random.Random,
    check: Callable[[], None],
    *,
    longest_s: float = 0.3,
) -> Kills:
    """Start it, let it settle, kill it within `longest_s`; one start in five is killed on the way. After each kill offset and
    rows must agree; `check` looks at the load.
    """
    found = Kills()
    for number in range(kills):
        before = offset(database)
        started = time.monotonic()
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "exchange.settlement",
            env={**os.environ, **variables},
            cwd=repository,
            stdout=subprocess.DEVNULL,
        )
        try:
            if number % 5 == 4:
                found.early += 1
                await asyncio.sleep(rng.uniform(0.0, 2.0))
            else:
                await eventually(partial(beyond, database, before), "it settles", DEADLINE_S)
                found.settling_after_s.append(time.monotonic() - started)
                await asyncio.sleep(rng.uniform(0.0, longest_s))
        finally:
            child.kill()
            await child.wait()
        check()
        found.sequences.append(offset(database))
        if found.sequences[-1]:
            assert_whole(database)
    return found


def beyond(database: Database, sequence: int) -> bool:
    """Whether more is settled than that."""
    return offset(database) > sequence


def offset(database: Database) -> int:
    """How far the tables are."""
    found = rows(database, "SELECT sequence FROM settlement_offset")
    return int(found[0][0]) if found else 0

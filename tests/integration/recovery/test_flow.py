"""What an independent matcher made of a flow, the engine makes too, though it dies on the way."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from pincex_client.replay.flow import read_book, read_commands, read_fills
from pincex_client.replay.run import Flow
from tests.integration.recovery.engine_process import engine_on
from tests.integration.recovery.flow import check, replay
from tests.postgres_fixture import Database
from tests.unit.client.recorded import write_flow

COMMANDS = 1_500
RATE = 1_500.0


async def test_a_flow_with_ticks_of_a_cent_is_equal_though_the_engine_is_killed(
    database: Database, free_port: Callable[[], int], seed: int, tmp_path: Path
) -> None:
    files = write_flow(tmp_path, COMMANDS, seed)
    flow = Flow(read_commands(files.commands), read_fills(files.fills), read_book(files.book))
    async with engine_on(database, free_port) as engine:
        check(await replay(engine, flow, "AAPL", 1, random.Random(seed), RATE), flow)

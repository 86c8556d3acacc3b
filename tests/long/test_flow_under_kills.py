"""The recorded flow and a made-up one through an engine that is killed again and again: equal fills and book."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pincex_client.replay.flow import read_book, read_commands, read_fills
from pincex_client.replay.run import Flow
from tests.integration.recovery.engine_process import engine_on
from tests.integration.recovery.flow import check, replay
from tests.unit.client.recorded import write_flow

pytestmark = pytest.mark.long

KILLS = 5


async def test_a_made_up_flow_with_ticks_of_a_cent_is_equal_under_kills(
    database, free_port: Callable[[], int], seed: int, tmp_path: Path
):
    files = write_flow(tmp_path, 5_000, seed)
    flow = Flow(read_commands(files.commands), read_fills(files.fills), read_book(files.book))
    async with engine_on(database, free_port) as engine:
        check(await replay(engine, flow, "AAPL", KILLS, random.Random(seed)), flow)


async def test_the_recorded_flow_is_equal_under_kills(
    database, free_port: Callable[[], int], seed: int, recorded_flow: Path
):
    part = "es-part-a"
    flow = Flow(
        read_commands(recorded_flow / f"{part}.commands.csv"),
        read_fills(recorded_flow / f"{part}.fills.csv"),
        read_book(recorded_flow / f"{part}.book.json"),
    )
    async with engine_on(database, free_port, PINCEX_SNAPSHOT_EVERY="5000") as engine:
        check(await replay(engine, flow, "ESH4", KILLS, random.Random(seed)), flow)

"""A damaged journal is never served: the process ends with status 1 and says where."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest_asyncio

from exchange.trading import codec
from exchange.trading.journal.contract import Frame
from exchange.trading.journal.postgres import PostgresJournal
from tests.integration.recovery.engine_process import EngineProcess, engine_on
from tests.postgres_fixture import Database
from tests.unit.trading.sequencer_rig import order

ORDERS = 12
_UPDATE = "UPDATE journal_frames SET commands = %s, events = %s, digest = %s, hash = %s, format_version = %s WHERE first_sequence = %s"


@dataclass
class Stopped:
    """An engine that has stopped in good order, its frames, and a way to change what is stored."""

    engine: EngineProcess
    frames: list[Frame]

    def execute(self, statement: str, *arguments: Any) -> None:
        with psycopg.connect(self.engine.database.admin_url, autocommit=True) as connection:
            assert connection.execute(statement, arguments).rowcount == 1

    def store(self, frame: Frame) -> None:
        values = (frame.commands, frame.events, frame.digest, frame.hash, frame.format_version, frame.first_sequence)
        self.execute(_UPDATE, *values)

    async def refused(self) -> str:
        """Start; the error that it ends with."""
        before = len(self.engine.log)
        self.engine.spawn()
        assert await self.engine.ended() == 1
        lines = [json.loads(line) for line in self.engine.log[before:].splitlines() if line.startswith("{")]
        assert "Traceback" not in self.engine.log[before:]
        (line,) = [line for line in lines if line["level"] == "error"]
        return str(line["error"])


@pytest_asyncio.fixture
async def stopped(database: Database, free_port: Callable[[], int]) -> AsyncIterator[Stopped]:
    async with engine_on(database, free_port) as engine:
        async with engine.client() as exchange:
            for number in range(ORDERS):
                await exchange.place_order("BTCUSD", "BUY", "0.001", "45000", client_order_id=f"{number}")
            await exchange.admin.create_snapshot(reason="test")
            for number in range(ORDERS, ORDERS + 6):
                await exchange.place_order("BTCUSD", "BUY", "0.001", "45000", client_order_id=f"{number}")
        assert await engine.terminate() == 0
        journal = await PostgresJournal.open(database.trading_url)
        frames = [frame async for frame in journal.read(1)]
        await journal.close()
        yield Stopped(engine, frames)


def resealed(frame: Frame, **changes: Any) -> Frame:
    """The last frame of a journal, with its hash made right again."""
    fields = {name: getattr(frame, name) for name in Frame.__slots__ if name != "hash"}
    return Frame.seal(**{**fields, **changes})


async def test_damage_is_refused_with_its_place_and_repair_is_served(stopped: Stopped) -> None:
    """One engine, one damage after the other, each repaired; all of them behind the newest snapshot."""
    whole = stopped.frames[-3]
    place = f"sequence {whole.first_sequence}: "
    stopped.store(replace(whole, commands=whole.commands[:-1] + bytes([whole.commands[-1] ^ 1])))
    assert place in await stopped.refused()
    stopped.store(replace(whole, events=whole.events[: len(whole.events) // 2]))
    assert place in await stopped.refused()
    stopped.store(whole)
    last = stopped.frames[-1]
    other = codec.encode_commands([order("forged", lots=10)])
    stopped.store(resealed(last, commands=other))
    assert f"sequence {last.first_sequence}: replay differs" in await stopped.refused()
    stopped.store(resealed(last, format_version=9))
    assert f"frame {last.first_sequence}..{last.last_sequence}: its format is 9" in await stopped.refused()
    stopped.store(last)
    await stopped.engine.start()
    async with stopped.engine.client() as exchange:
        assert len(await exchange.list_orders("BTCUSD")) == ORDERS + 6


async def test_a_missing_frame_is_refused_with_its_place(stopped: Stopped) -> None:
    gone = stopped.frames[-2]
    stopped.execute("DELETE FROM journal_frames WHERE first_sequence = %s", gone.first_sequence)
    assert f"sequences {gone.first_sequence}..{gone.last_sequence} are missing" in await stopped.refused()


async def test_a_snapshot_that_was_altered_is_refused_with_its_place(stopped: Stopped) -> None:
    sequence = stopped.frames[-7].last_sequence
    stopped.execute("UPDATE journal_snapshots SET state_hash = %s WHERE sequence = %s", "0" * 64, sequence)
    assert f"sequence {sequence}: the snapshot" in await stopped.refused()

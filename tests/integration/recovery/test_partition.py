"""An engine of three is cut off from the database, under load at another one: nothing passes, and no connection breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from tests.integration.journal.waiting import until
from tests.integration.recovery.engine_process import EngineProcess, engine_on
from tests.integration.recovery.load import Load
from tests.integration.recovery.proof import prove
from tests.integration.recovery.wire import Wire
from tests.postgres_fixture import Database

ENGINES = 3
PAUSE_S = 0.02
TAKEN_OVER_S = 4.0
"""The lease runs out after 2 s; a machine at work on other things takes its part."""
CUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """Engines, each with its own wire to the database; the first one leads at first."""

    engines: list[EngineProcess]
    wires: list[Wire]

    async def leader(self) -> int | None:
        """Which one leads, None while none or several say so."""
        roles = await asyncio.gather(*(asyncio.to_thread(engine.role) for engine in self.engines))
        return roles.index("leader") if roles.count("leader") == 1 else None

    async def agree(self) -> bool:
        """Whether all stand at the same sequence; fails where they do with different states."""
        states = []
        for engine in self.engines:
            async with engine.client() as exchange:
                states.append(await exchange.admin.engine_state())
        if len({state.sequence for state in states}) > 1:
            return False
        assert len({state.state_hash for state in states}) == 1, states
        return True


@asynccontextmanager
async def fleet_on(database: Database, ports: Callable[[], int]) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        fleet = Fleet([], [])
        for number in range(1, ENGINES + 1):
            wire = await stack.enter_async_context(Wire(database.trading_url).strung())
            names = {"PINCEX_INSTANCE": f"engine-{number}", "JWT_SECRET": "what the engines share"}
            engine = await stack.enter_async_context(engine_on(database, ports, DATABASE_URL=wire.url, **names))
            fleet.engines.append(engine)
            fleet.wires.append(wire)
        yield fleet


def has_answered(load: Load, count: int) -> bool:
    load.check()
    return load.answered > count


async def test_a_leader_that_is_cut_off_from_the_database_is_replaced_and_nothing_is_lost(
    database: Database, free_port: Callable[[], int], seed: int
) -> None:
    async with fleet_on(database, free_port) as fleet:
        assert await fleet.leader() == 0
        load = Load(fleet.engines[1], seed, pause_s=PAUSE_S, patient=True)
        await load.start()
        await until(partial(has_answered, load, 200))

        fleet.wires[0].cut()
        load.note_kill()
        await until(lambda: load.resumed_at > 0.0)
        seconds = load.resumed_at - load.killed_at
        print(f"orders answered again {seconds:.2f} s after the cut")
        assert seconds < TAKEN_OVER_S

        fleet.wires[0].mend()

        async def follows() -> bool:
            return await fleet.leader() in {1, 2} and fleet.engines[0].role() == "follower"

        await until(follows)
        await until(partial(has_answered, load, load.answered + 200))
        await load.stop()
        await until(fleet.agree)
        await prove(fleet.engines[1], load)


async def test_a_follower_that_is_cut_off_from_the_database_serves_on_over_its_link(
    database: Database, free_port: Callable[[], int], seed: int
) -> None:
    async with fleet_on(database, free_port) as fleet:
        load = Load(fleet.engines[1], seed, pause_s=PAUSE_S, patient=True)
        await load.start()
        await until(partial(has_answered, load, 200))

        fleet.wires[1].cut()
        cut_at = time.monotonic()
        while time.monotonic() - cut_at < CUT_S:
            await until(partial(has_answered, load, load.answered + 10))
        # No order waited for the database to come back; what is audited does, and is refused where it would take too long.
        assert load.longest_wait(cut_at, time.monotonic(), audited=False) < CUT_S
        assert await fleet.leader() == 0

        fleet.wires[1].mend()
        await load.stop()
        await until(fleet.agree)
        await prove(fleet.engines[0], load)

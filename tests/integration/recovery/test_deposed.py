"""Two engines on one journal: a leader that was frozen wakes up deposed, and neither tells a lie nor writes a frame."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from exchange.trading import recovery
from exchange.trading.journal.postgres import PostgresJournal
from pincex_client import ExchangeClient, ExchangeError, Order
from tests.integration.journal.waiting import until
from tests.integration.recovery.engine_process import ONCE, EngineProcess, engine_on
from tests.postgres_fixture import Database


async def place(exchange: ExchangeClient, name: str) -> Order:
    return await exchange.place_order("BTCUSD", "BUY", "0.001", "45000", client_order_id=name)


async def test_a_frozen_leader_wakes_up_deposed(database: Database, free_port: Callable[[], int]) -> None:
    async with engine_on(database, free_port, PINCEX_INSTANCE="a") as a, a.client(**ONCE) as asks_a:
        first = await place(asks_a, "first")
        a.process.send_signal(signal.SIGSTOP)
        frozen_at = time.monotonic()
        async with engine_on(database, free_port, PINCEX_INSTANCE="b") as b, b.client(**ONCE) as asks_b:
            print(
                f"another instance serves {time.monotonic() - frozen_at:.2f} s after the leader froze, start included"
            )
            assert (await asks_b.get_order(client_order_id="first")).order_id == first.order_id
            from_b = await place(asks_b, "from-b")
            sent = asyncio.create_task(place(asks_a, "from-a"))
            await asyncio.sleep(0)
            a.process.send_signal(signal.SIGCONT)
            # It went into a frame that was fenced; or the lease was seen to be lost first, and it was forwarded.
            (answered,) = await asyncio.gather(sent, return_exceptions=True)
            assert isinstance(answered, Order) or (isinstance(answered, ExchangeError) and answered.transient)
            await until(a.ready)
            async with a.client() as patient:
                # It may have said that it was ready before it saw that it leads no more.
                assert (await patient.get_order(client_order_id="from-b")).order_id == from_b.order_id
                again = await place(patient, "from-a")
            assert int(again.order_id) > int(from_b.order_id)
            assert not isinstance(answered, Order) or answered.order_id == again.order_id
            assert (await asks_b.get_order(client_order_id="from-a")).order_id == again.order_id
            assert await b.terminate() == 0
        async with a.client() as patient:
            await place(patient, "alone")
        await check_journal(a)


async def check_journal(engine: EngineProcess) -> None:
    """Three leaderships, one history, and the running core is what it says."""
    async with engine.client() as exchange:
        state = await exchange.admin.engine_state()
    journal = await PostgresJournal.open(engine.database.trading_url)
    replayed = await recovery.recover(journal, to_sequence=state.sequence, from_genesis=True)
    epochs = {frame.epoch async for frame in journal.read(1)}
    await journal.close()
    assert replayed.engine.state_hash() == state.state_hash
    assert epochs == {1, 2, 3}

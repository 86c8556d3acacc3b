"""The life of an instance around its sequencer: outages are sat out, a broken core ends it, a deposed leader starts anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from exchange.runtime.config import Environment
from exchange.runtime.errors import ServiceError
from exchange.trading.__main__ import App
from exchange.trading.config import Config
from exchange.trading.core.events import R_REASON
from exchange.trading.journal.contract import JournalUnavailable
from exchange.trading.journal.memory import MemoryLease, MemoryStore
from tests.integration.journal.waiting import until
from tests.unit.trading.sequencer_rig import ControlledJournal, FaultyEngine, order

pytestmark = pytest.mark.core


class Running:
    """An instance that runs over a journal which the test controls; no server listens."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.journal = ControlledJournal(self.store)
        config = Config.read(Environment({"PINCEX_MEMORY": "1", "PINCEX_PROFILE": "development"}))
        self.app = App(config, self.journal, MemoryLease(self.store))
        self.replica = self.app.replica = self.app._make_replica()
        self.run = asyncio.create_task(self.replica.run())

    def serving(self) -> bool:
        assert not self.run.done()
        return self.app._ready().ready

    async def end(self) -> None:
        self.replica.stop()
        await asyncio.wait_for(self.run, 10.0)


@pytest_asyncio.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    yield made
    if not made.run.done():
        await made.end()


async def test_an_outage_while_the_markets_are_made_is_sat_out(running: Running) -> None:
    running.journal.holding = True
    await until(lambda: bool(running.journal.begun))
    assert not running.serving()
    # The journal has answered nothing for long; then its store is back, and lost the frame.
    running.journal.stalled_at = running.app.clock.monotonic() - 60.0
    await until(lambda: running.store.epoch >= 2)
    await asyncio.sleep(0.5)
    assert running.store.epoch < 6, "it tries again, and not all the time"
    running.journal.stalled_at = None
    running.journal.holding = False
    running.journal.fail(JournalUnavailable("it was never stored"))
    await until(running.serving)
    assert running.app.desk.state.market_index.keys() == {"BTCUSD", "ETHUSD"}


async def test_a_deposed_leader_discards_what_was_not_durable_and_starts_anew(running: Running) -> None:
    await until(running.serving)
    running.store.epoch += 1
    with pytest.raises(ServiceError):
        await running.app.desk.submit([order("lost")])
    await until(lambda: running.store.epoch == 3 and running.serving())
    assert running.app.desk.state.accounts["demo"].placed == {}
    assert (await running.app.desk.submit([order("kept")]))[0][R_REASON] == 0


async def test_a_broken_core_ends_the_instance_with_what_broke(running: Running) -> None:
    await until(running.serving)
    sequencer = running.app.desk.sequencer
    assert sequencer is not None
    error = AssertionError("the book is crossed")
    sequencer.engine = FaultyEngine(sequencer.engine, "maker", error)  # type: ignore[assignment]
    head = running.store.head()
    with pytest.raises(ServiceError):
        await running.app.desk.submit([order("bad", account="maker")])
    with pytest.raises(AssertionError, match="crossed"):
        await asyncio.wait_for(running.run, 10.0)
    assert running.store.head() == head
    assert not running.app._ready().ready


async def test_a_stop_makes_what_has_arrived_durable_first(running: Running) -> None:
    await until(running.serving)
    results = running.app.desk.enqueue([order("last")])
    await running.end()
    assert (await results)[0][R_REASON] == 0

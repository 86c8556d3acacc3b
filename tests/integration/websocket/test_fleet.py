"""Several instances count and clean up as one, through Valkey; each alone where it is away."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from exchange.websocket.fleet import CLEAN_UP, COUNTS, Cleaned, Fleet, Share
from tests.integration.trading.engine_app import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.valkey_fixture import ValkeyServer


class Instance:
    """One of them, with so many connections, of which a clean-up closes so many."""

    def __init__(self, valkey: ValkeyServer, name: str, connections: int, idle: int) -> None:
        self.asked: list[float] = []
        self._idle = idle
        share = Share(name, connections, 1, 2 * connections, {"book": connections}, {"192.0.2.1": connections})
        self.fleet = Fleet(valkey.url, lambda: share, self._clean)

    def _clean(self, idle_s: float) -> int:
        self.asked.append(idle_s)
        return self._idle

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Instance]:
        tasks = [asyncio.create_task(task) for task in (self.fleet.publish(), self.fleet.obey())]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.fleet.close()


async def test_instances_count_together_and_one_that_stops_or_is_silent_counts_no_more(valkey: ValkeyServer) -> None:
    async with Instance(valkey, "websocket-1", 3, 0).running() as first:
        async with Instance(valkey, "websocket-2", 5, 0).running():
            with valkey.client() as client:
                await eventually(lambda: len(client.keys(f"{COUNTS}*")) == 2, "both have said so")
                assert client.pttl(f"{COUNTS}websocket-2") > 0
                client.set(f"{COUNTS}rubbish", "{", px=60_000)
            shares = await first.fleet.shares()
            assert [(share.instance, share.connections) for share in shares] == [("websocket-1", 3), ("websocket-2", 5)]
        assert [share.instance for share in await first.fleet.shares()] == ["websocket-1"]


async def test_a_clean_up_reaches_all_instances_and_answers_what_they_closed(valkey: ValkeyServer) -> None:
    async with (
        Instance(valkey, "websocket-1", 3, 1).running() as first,
        Instance(valkey, "websocket-2", 5, 4).running() as second,
    ):
        with valkey.client() as client:
            await eventually(lambda: client.pubsub_numsub(CLEAN_UP)[0][1] == 2, "both listen")
            client.publish(CLEAN_UP, "rubbish")
        assert await second.fleet.clean_up(60.0) == Cleaned(closed=5, instances=2)
        assert (first.asked, second.asked) == ([60.0], [60.0])


async def test_without_valkey_each_instance_speaks_for_itself(valkey: ValkeyServer) -> None:
    async with Instance(valkey, "websocket-1", 3, 1).running() as alone:
        valkey.kill()
        assert [share.connections for share in await alone.fleet.shares()] == [3]
        assert await alone.fleet.clean_up(60.0) == Cleaned(closed=1, instances=1)
        valkey.start()
        with valkey.client() as client:
            await eventually(lambda: client.pubsub_numsub(CLEAN_UP)[0][1] == 1, "it listens again")
        assert await alone.fleet.clean_up(61.0) == Cleaned(closed=1, instances=1)
    assert alone.asked == [60.0, 61.0]

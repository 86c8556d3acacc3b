"""Feeds on venues that have bad days: afterwards the book is whole again, and until then the venue has no price."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal

import pytest

from exchange.market_data.venues.catalogue import SIMULATED, VENUES
from exchange.market_data.venues.feed import Feed, State
from exchange.market_data.venues.limits import Limits
from exchange.market_data.venues.pace import Backoff, LatencyWindow
from exchange.market_data.venues.simulated import SimulatedVenue, Walk
from exchange.market_data.venues.ticks import Tick
from exchange.runtime.clock import SystemClock
from tests.integration.journal.waiting import until
from tests.integration.market_data.venue_servers import (
    HUGE,
    BinanceServer,
    CoinbaseServer,
    VenueServer,
    moving,
)

QUICK = Limits(
    stale_s=20.0, silent_s=20.0, crossed_s=0.02, repeat_s=0.05, first_pause_s=0.01, longest_pause_s=0.05,
    fetch_pause_s=0.01, max_message_bytes=HUGE // 2,
)  # fmt: skip
DEADLINE_S = 20.0
KINDS = [BinanceServer, CoinbaseServer]


@dataclass
class Followed:
    """A feed, and all that it has said."""

    feed: Feed
    ticks: list[Tick] = field(default_factory=list)

    @property
    def best(self) -> tuple[Decimal | None, Decimal | None]:
        return (self.ticks[-1].bid, self.ticks[-1].ask) if self.ticks else (None, None)

    async def until_whole(self, server: VenueServer) -> None:
        """It is live, and says what the venue's book is; the venue moves until then, as all that fetch a snapshot need it."""

        async with asyncio.timeout(DEADLINE_S):
            while True:
                await server.move()
                for _ in range(10):
                    await asyncio.sleep(0.002)
                    if self.feed.state is State.LIVE and self.best == server.best:
                        return

    def since(self, place: int) -> list[tuple[Decimal | None, Decimal | None]]:
        return [(tick.bid, tick.ask) for tick in self.ticks[place:]]


@asynccontextmanager
async def following(server: VenueServer, limits: Limits = QUICK) -> AsyncIterator[Followed]:
    said: list[Tick] = []
    feed = Feed(server.venue, said.append, SystemClock(), limits=limits, rng=random.Random(1))
    task = asyncio.create_task(feed.run())
    try:
        yield Followed(feed, said)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[VenueServer]:
    async with request.param() as found:
        yield found


async def test_a_feed_follows_its_venue(server: VenueServer) -> None:
    async with following(server) as followed:
        await followed.until_whole(server)
        await server.trade()
        await until(lambda: followed.ticks[-1].trade == server.best[0])
        feed = followed.feed
        assert feed.problem == ""
        assert feed.connected_ns is not None
        assert feed.counts.messages > 0
        assert (feed.counts.reconnects, feed.counts.gaps, feed.counts.mismatches) == (0, 0, 0)
        percentiles = feed.latency.percentiles(SystemClock().monotonic())
        assert percentiles is not None
        assert 0 <= percentiles[0] <= percentiles[1]
        assert followed.ticks[-1].venue == server.name
        assert all(bid < ask for bid, ask in followed.since(0) if bid is not None and ask is not None)


async def lose(server: VenueServer) -> None:
    await server.lose()
    await server.move()


async def huge(server: VenueServer) -> None:
    await server.say("x" * HUGE)


FAULTS: dict[str, Callable[[VenueServer], Awaitable[None]]] = {
    "gap": lose,
    "mismatch": lambda server: server.disagree(),
    "no JSON": lambda server: server.say("garbage"),
    "binary": lambda server: server.say(b"\x00\xff"),
    "deep": lambda server: server.say("[" * 10_000),
    "empty": lambda server: server.say(""),
    "huge frame": huge,
    "drop": lambda server: server.drop(),
    "refusal": lambda server: server.say('{"type":"error","message":"go away","code":1,"msg":"go away"}'),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_after_a_fault_the_price_is_withdrawn_and_then_the_book_is_whole_again(
    server: VenueServer, fault: str
) -> None:
    async with following(server) as followed:
        await followed.until_whole(server)
        place = len(followed.ticks)
        await FAULTS[fault](server)

        async def is_withdrawn() -> bool:
            await server.move()
            return (None, None) in followed.since(place)

        await until(is_withdrawn)
        await followed.until_whole(server)
        counts = followed.feed.counts
        assert counts.gaps == (fault == "gap")
        assert counts.mismatches == (fault == "mismatch")
        kept = isinstance(server, BinanceServer) and fault in {"gap", "mismatch"}
        assert server.accepted == (1 if kept else 2), "a book of Binance begins anew without another connection"
        assert counts.reconnects == server.accepted - 1


async def test_a_silent_venue_is_stale_then_given_up_and_comes_back(server: VenueServer) -> None:
    limits = replace(QUICK, stale_s=0.1, silent_s=0.3, whole_s=0.3)
    async with following(server, limits) as followed:
        await followed.until_whole(server)
        server.is_mute = True
        await until(lambda: followed.feed.state is State.STALE)
        assert "nothing came" in followed.feed.problem
        await until(lambda: followed.feed.state is State.BACKING_OFF)
        assert followed.best == (None, None)
        server.is_mute = False
        await followed.until_whole(server)


async def test_a_book_that_never_comes_ends_the_connection(server: VenueServer) -> None:
    server.is_mute = True
    async with following(server, replace(QUICK, stale_s=0.02, whole_s=0.05)) as followed:
        await until(lambda: "no whole book of BTCUSD" in followed.feed.problem)
        server.is_mute = False
    async with following(server) as followed:
        await followed.until_whole(server)


async def test_a_storm_of_connections_that_close_at_once_passes(server: VenueServer) -> None:
    server.closes_at_once = 6
    async with following(server) as followed:
        await until(lambda: server.accepted > 6)
        await followed.until_whole(server)
        assert followed.feed.counts.reconnects == 6


async def test_a_venue_that_is_not_there_is_asked_again_and_again() -> None:
    async with CoinbaseServer() as server:
        server.refuses = True
        async with following(server) as followed:
            await until(lambda: followed.feed.counts.reconnects > 2)
            assert "503" in followed.feed.problem
            server.refuses = False
            await followed.until_whole(server)
            assert followed.feed.problem == ""


async def test_an_operators_restart_begins_anew_at_once_also_out_of_a_pause(server: VenueServer) -> None:
    async with following(server, replace(QUICK, first_pause_s=3_600.0, longest_pause_s=3_600.0)) as followed:
        await followed.until_whole(server)
        followed.feed.restart()
        await until(lambda: server.accepted == 2)
        await followed.until_whole(server)
        await server.drop()
        await until(lambda: followed.feed.state is State.BACKING_OFF)
        followed.feed.restart()
        await followed.until_whole(server)
        assert server.accepted == 3


async def test_snapshots_that_fail_are_fetched_again() -> None:
    async with BinanceServer() as server:
        server.fails = 3
        async with following(server) as followed:
            await followed.until_whole(server)
            assert server.snapshots >= 4
            assert server.accepted == 1


async def test_snapshots_that_always_fail_end_the_connection() -> None:
    async with BinanceServer() as server:
        server.fails = 1_000
        async with following(server) as followed, moving(server):
            await until(lambda: "did not make a book" in followed.feed.problem)
            server.fails = 0
            await until(lambda: followed.feed.state is State.LIVE)


async def test_a_book_that_breaks_again_and_again_is_not_fetched_without_pause() -> None:
    async with BinanceServer() as server, following(server, replace(QUICK, fetch_pause_s=3_600.0)) as followed:
        await followed.until_whole(server)
        for _ in range(5):
            await lose(server)
        await until(lambda: followed.feed.counts.gaps == 1)
        assert server.snapshots == 1


async def test_the_simulated_venue_is_followed_and_repeats_itself_by_its_seed() -> None:
    def walked(seed: int) -> list[int]:
        walk = Walk(5_000_000, random.Random(seed))
        prices = []
        for _ in range(500):
            walk.step()
            prices.append(walk.middle)
        return prices

    assert walked(1) == walked(1) != walked(2)
    assert len(set(walked(1))) > 100
    assert all(abs(price - 5_000_000) < 250_000 for seed in range(5) for price in walked(seed)), "within 5 %"
    async with SimulatedVenue(seed=7, every_s=0.01) as venue:
        spec = replace(VENUES[SIMULATED], url=venue.url)
        said: list[Tick] = []
        feed = Feed(spec, said.append, SystemClock(), limits=QUICK, rng=random.Random(1))
        task = asyncio.create_task(feed.run())
        await until(lambda: len({tick.bid for tick in said}) > 10 and any(tick.trade for tick in said))
        assert feed.state is State.LIVE
        assert (feed.counts.gaps, feed.counts.mismatches, feed.counts.reconnects) == (0, 0, 0)
        assert all(tick.bid < tick.ask for tick in said if tick.bid is not None and tick.ask is not None)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_pauses_double_up_to_a_bound_with_jitter() -> None:
    backoff = Backoff(1.0, 60.0, random.Random(3))
    pauses = [backoff.next_s() for _ in range(40)]
    for number, pause in enumerate(pauses):
        whole = min(60.0, 2.0**number)
        assert whole / 2 <= pause <= whole
    assert len(set(pauses)) == 40
    backoff.begin_anew()
    assert backoff.next_s() <= 1.0


def test_latency_is_of_the_last_minute_and_by_nearest_rank() -> None:
    window = LatencyWindow()
    assert window.percentiles(0.0) is None
    window.add(0.0, 10_000.0)
    for number in range(1, 101):
        window.add(100.0, float(number))
    window.add(100.0, -5.0)
    assert window.percentiles(101.0) == (50.0, 99.0)
    assert window.percentiles(1_000.0) is None

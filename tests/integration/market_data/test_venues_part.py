"""The feeds as a part of a process: one instance runs them, all answer, and losing Valkey or the database ends none of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from exchange.market_data.service.venues import FeedService, ReferencePriceService, no_own_book
from exchange.market_data.venues import tick_queue
from exchange.market_data.venues.config import VenuesConfig
from exchange.market_data.venues.feed import State
from exchange.market_data.venues.part import VenuesPart
from exchange.market_data.venues.tick_queue import QUEUE, TickQueue
from exchange.market_data.venues.ticks import Tick, encode
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import ConfigError, Environment, Secret
from exchange.runtime.database import Database as Pool
from exchange.runtime.errors import ServiceError
from pincex.marketdata.v1 import feed_service_pb2 as pb
from tests.integration.journal.waiting import until
from tests.integration.market_data.venue_servers import BinanceServer, CoinbaseServer, moving
from tests.postgres_fixture import Database
from tests.valkey_fixture import ValkeyServer

SIMULATED = {"PINCEX_SIMULATED_VENUE_MS": "20"}


def url_of(database: Database) -> str:
    return database.server.url(database.name, "market_data_user")


@asynccontextmanager
async def instance(
    database: Database, redis_url: Secret | None, name: str = "market-data-1", **settings: str
) -> AsyncIterator[VenuesPart]:
    """A running part, as the process wires it."""
    pool = Pool(url_of(database), name)
    await pool.open()
    part = VenuesPart(
        VenuesConfig.read(Environment(SIMULATED | settings)),
        database=pool,
        database_url=Secret(url_of(database)),
        redis_url=redis_url,
        instance=name,
        clock=SystemClock(),
        registry=CollectorRegistry(),
    )
    tasks = [asyncio.create_task(task) for task in part.tasks()]
    try:
        yield part
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await part.close()
        await pool.close()


async def has_price(part: VenuesPart, symbol: str = "BTCUSD") -> bool:
    return (await part.compare(symbol)).price is not None


async def reason_of(call: Any) -> str:
    with pytest.raises(ServiceError) as refused:
        await call
    return refused.value.reason_name


@asynccontextmanager
async def both_venues() -> AsyncIterator[tuple[BinanceServer, CoinbaseServer, dict[str, str]]]:
    async with BinanceServer() as binance, CoinbaseServer() as coinbase:
        settings = {
            "PINCEX_VENUES": "binance,coinbase",
            "PINCEX_BINANCE_URL": f"ws://{binance.address}",
            "PINCEX_BINANCE_REST_URL": f"http://{binance.address}",
            "PINCEX_COINBASE_URL": f"ws://{coinbase.address}",
            "PINCEX_VENUE_MARKETS": "BTCUSD",
        }
        async with moving(binance), moving(coinbase):
            yield binance, coinbase, settings


async def test_prices_of_both_venues_come_by_the_queue_to_the_table(database: Database, valkey: ValkeyServer) -> None:
    async with both_venues() as (_, _, settings), instance(database, valkey.url, **settings) as part:
        await until(lambda: has_price(part))
        await until(lambda: _counts(part, 2))
        owner = await asyncpg.connect(database.server.url(database.name, "admin"))
        try:

            async def is_stored() -> bool:
                return bool(
                    await owner.fetchval(
                        "SELECT count(*) FROM latest_prices WHERE now() - timestamp < INTERVAL '30 seconds'"
                    )
                )

            await until(is_stored)
            price = await owner.fetchval("SELECT price FROM latest_prices WHERE symbol = 'BTCUSD'")
        finally:
            await owner.close()
        assert Decimal(50_000) < price < Decimal(60_000)
        answer = await ReferencePriceService(part).GetReferencePrice(
            pb.GetReferencePriceRequest(symbol="btc-usd"), None
        )
        assert answer.symbol == "BTCUSD"
        assert answer.venue_count == 2
        feeds = await FeedService(part, no_own_book).ListFeeds(pb.ListFeedsRequest(), None)
        assert [feed.name for feed in feeds.feeds] == ["binance", "coinbase"]
        assert all(feed.HasField("latency_p99_ms") and feed.messages for feed in feeds.feeds)


async def _counts(part: VenuesPart, venues: int) -> bool:
    return (await part.compare("BTCUSD")).venue_count == venues


async def test_a_venue_that_strays_is_named_and_left_out(database: Database, valkey: ValkeyServer) -> None:
    async with both_venues() as (_, coinbase, settings), instance(database, valkey.url, **settings) as part:
        await until(lambda: _counts(part, 2))
        coinbase.price *= 2

        async def own_book(symbol: str) -> tuple[str, str]:
            return ("1.5", "") if symbol == "BTCUSD" else ("", "")

        async def strays() -> bool:
            found = await FeedService(part, own_book).ComparePrices(pb.ComparePricesRequest(symbol="BTCUSD"), None)
            assert (found.own_bid, found.own_ask) == ("1.5", "")
            return {venue.venue: venue.why for venue in found.venues} == {"binance": "outlier", "coinbase": "outlier"}

        await until(strays)
        request = pb.GetReferencePriceRequest(symbol="BTCUSD")
        assert await reason_of(ReferencePriceService(part).GetReferencePrice(request, None)) == "PRICE_UNAVAILABLE"
        coinbase.price //= 2
        await until(lambda: _counts(part, 2))


async def test_one_instance_runs_the_feeds_and_every_instance_answers(database: Database, valkey: ValkeyServer) -> None:
    async with instance(database, valkey.url) as first:
        await until(lambda: has_price(first))
        async with instance(database, valkey.url, "market-data-2") as second:
            await until(lambda: has_price(second))
            assert (first.is_holder, second.is_holder) == (True, False)
            assert second.feeds_here() == []
            before = (await second.feeds()).feed("simulated")
            assert before is not None
            after = await second.restart("simulated")
            assert after.reconnects == before.reconnects + 1
            assert first.feeds_here()[0].reconnects == after.reconnects
            seen = (await second.compare("BTCUSD")).price_ns
            assert seen is not None
            valkey.kill()

            async def moves_on() -> bool:
                found = (await second.compare("BTCUSD")).price_ns
                return found is not None and found > seen + 1_000_000_000

            # By PostgreSQL alone, for longer than what was read before is believed.
            await until(moves_on)
            assert (await second.feeds()).instance == "market-data-1"


async def test_when_the_holder_is_gone_another_takes_over(database: Database, valkey: ValkeyServer) -> None:
    async with AsyncExitStack() as later:
        async with instance(database, valkey.url) as first:
            await until(lambda: first.is_holder)
            second = await later.enter_async_context(instance(database, valkey.url, "market-data-2"))
            await until(lambda: has_price(second))
            assert not second.is_holder
        await until(lambda: second.is_holder)
        await until(lambda: has_price(second))
        assert (await second.feeds()).instance == "market-data-2"


async def test_feeds_go_on_while_valkey_is_away_and_use_it_again(database: Database, valkey: ValkeyServer) -> None:
    async with instance(database, valkey.url) as part:
        await until(lambda: has_price(part))
        valkey.kill()
        seen = (await part.compare("BTCUSD")).price_ns
        assert seen is not None

        async def moves_on() -> bool:
            found = (await part.compare("BTCUSD")).price_ns
            return found is not None and found > seen

        await until(moves_on)
        assert part.feeds_here()[0].state == State.LIVE.value
        assert (await part.feeds()).queue_depth == 0


async def test_feeds_go_on_while_their_session_is_cut(database: Database, valkey: ValkeyServer) -> None:
    async with instance(database, valkey.url) as part:
        await until(lambda: has_price(part))
        before = part.feeds_here()[0]
        owner = await asyncpg.connect(database.server.url(database.name, "postgres"))
        try:
            cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'pincex-market-data%'"
            assert await owner.fetchval(cut)

            async def holds_again() -> bool:
                return bool(
                    await owner.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
                )

            await until(holds_again)
        finally:
            await owner.close()
        await until(lambda: has_price(part))
        assert part.is_holder
        assert part.feeds_here()[0].connected_ns == before.connected_ns, "the connection to the venue is the same"


async def test_what_nobody_knows_is_refused(database: Database, valkey: ValkeyServer) -> None:
    async with instance(database, valkey.url) as part:
        service = FeedService(part, no_own_book)
        await until(lambda: part.is_holder)
        assert await reason_of(service.RestartFeed(pb.RestartFeedRequest(name="kraken"), None)) == "FEED_NOT_FOUND"
        assert (
            await reason_of(service.ComparePrices(pb.ComparePricesRequest(symbol="XRPUSD"), None)) == "UNKNOWN_SYMBOL"
        )
        assert await reason_of(service.ComparePrices(pb.ComparePricesRequest(), None)) == "FIELD_REQUIRED"
        long = pb.RestartFeedRequest(name="simulated", reason="x" * 300)
        assert await reason_of(service.RestartFeed(long, None)) == "INVALID_FIELD"


async def test_without_venues_there_is_nothing_to_run(database: Database) -> None:
    async with instance(database, None, PINCEX_VENUES="none") as part:
        assert part.tasks() == ()
        assert (await part.feeds()).feeds == ()
        assert await reason_of(part.compare("BTCUSD")) == "UNKNOWN_SYMBOL"


async def test_before_anybody_runs_the_feeds_the_answer_is_to_ask_again(database: Database) -> None:
    pool = Pool(url_of(database), "alone")
    await pool.open()
    part = VenuesPart(
        VenuesConfig.read(Environment({})),
        database=pool,
        database_url=Secret(url_of(database)),
        redis_url=None,
        instance="alone",
        clock=SystemClock(),
        registry=CollectorRegistry(),
    )
    assert await reason_of(part.feeds()) == "NOT_READY"
    assert (await part.compare("BTCUSD")).price is None
    await pool.close()


# --- The queue ---


def tick(number: int, venue: str = "a") -> Tick:
    return Tick(venue=venue, symbol="BTCUSD", bid=Decimal(number), ask=Decimal(number + 1), received_ns=number)


async def test_ticks_wait_on_the_list_in_order_and_bounded(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick_queue, "MAX_QUEUED", 3)
    got: list[Tick] = []
    queue = TickQueue(valkey.url, got.append, SystemClock())
    for number in range(1, 6):
        queue.put(tick(number))
        await queue.push()
    assert await queue.length() == 3
    with valkey.client() as client:
        assert client.llen("market_data_queue") == 3
    await queue.take()
    assert [one.bid for one in got] == [Decimal(3), Decimal(4), Decimal(5)]
    assert await queue.length() == 0
    await queue.close()


async def test_of_what_waits_in_memory_the_newest_counts_and_no_trade_is_lost(valkey: ValkeyServer) -> None:
    got: list[Tick] = []
    queue = TickQueue(valkey.url, got.append, SystemClock())
    queue.put(Tick(venue="a", symbol="BTCUSD", trade=Decimal(7), received_ns=1))
    queue.put(tick(2))
    queue.put(tick(3, "b"))
    await queue.push()
    await queue.take()
    assert [(one.venue, one.bid, one.trade) for one in got] == [
        ("a", Decimal(2), Decimal(7)),
        ("b", Decimal(3), None),
    ]
    await queue.close()


async def test_what_is_no_tick_on_the_list_is_counted_and_passed_over(valkey: ValkeyServer) -> None:
    got: list[Tick] = []
    queue = TickQueue(valkey.url, got.append, SystemClock())
    with valkey.client() as client:
        client.rpush(QUEUE, "garbage", encode(tick(1)), '{"venue":1}')
    await queue.take()
    assert (len(got), queue.refused) == (1, 2)
    with valkey.client() as client:
        client.delete(QUEUE)
        client.set(QUEUE, "no list")
    queue.put(tick(2))
    await queue.push()
    assert [one.bid for one in got] == [Decimal(1), Decimal(2)], "handed over where the list is none"
    await queue.close()


# --- The settings ---


@pytest.mark.parametrize(
    ("name", "value"),
    [("PINCEX_VENUES", "kraken"), ("PINCEX_VENUES", "binance,,"), ("PINCEX_VENUE_MARKETS", "XRPUSD"), ("PINCEX_SIMULATED_VENUE_MS", "0")],
)  # fmt: skip
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        VenuesConfig.read(Environment({name: value}))


def test_by_default_the_simulated_venue_is_followed_and_no_network() -> None:
    config = VenuesConfig.read(Environment({}))
    assert [venue.name for venue in config.venues] == ["simulated"]
    assert config.markets == {"BTCUSD": ("simulated",), "ETHUSD": ("simulated",)}

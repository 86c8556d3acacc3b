"""Valkey may be asked, never waited for: dead, frozen or busy, it costs one short wait."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import MaxConnectionsError

from exchange.runtime.clock import ManualClock
from exchange.runtime.config import Secret
from exchange.runtime.quick_cache import ANSWER_S, REST_S, QuickCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.valkey_fixture import ValkeyServer


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def cache(valkey: ValkeyServer, clock: ManualClock) -> AsyncIterator[QuickCache]:
    cache = QuickCache(valkey.url, clock=clock)
    yield cache
    await cache.close()


async def test_what_is_put_is_found_for_as_long_as_it_lives(cache: QuickCache, valkey: ValkeyServer) -> None:
    await cache.put("a", "1", live_ms=60_000)
    await cache.put("a", "2", live_ms=60_000, only_new=True)
    await cache.put("b", "3", live_ms=60_000, only_new=True)
    assert await cache.find(("a", "none", "b")) == ["1", None, "3"]
    with valkey.client() as client:
        assert 59_000 < client.pttl("a") <= 60_000


async def test_a_dead_server_is_asked_once_and_then_left_alone_for_a_while(
    cache: QuickCache, valkey: ValkeyServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.put("a", "1", live_ms=60_000)
    valkey.freeze()
    started = time.monotonic()
    assert await cache.find(("a",)) == [None]
    assert time.monotonic() - started < 4 * ANSWER_S
    assert cache.resting

    started = time.monotonic()
    for _ in range(1_000):
        assert await cache.find(("a",)) == [None]
        await cache.put("a", "1", live_ms=60_000)
    assert time.monotonic() - started < ANSWER_S, "2,000 calls in less than one takes to fail"

    clock.advance(REST_S)
    assert not cache.resting
    tried = []
    ask = cache._client.mget
    with monkeypatch.context() as patched:
        patched.setattr(cache._client, "mget", lambda keys: (tried.append(keys), ask(keys))[1])
        found = await asyncio.gather(*(cache.find(("a",)) for _ in range(10)))
    assert found == [[None]] * 10
    assert tried == [("a",)], "one tries for all"
    assert cache.resting
    valkey.kill()

    valkey.start()
    clock.advance(REST_S)
    assert await cache.find(("a",)) == [None], "it has forgotten"
    await cache.put("a", "1", live_ms=60_000)
    assert await cache.find(("a",)) == ["1"]


async def test_a_busy_server_is_not_a_dead_one(cache: QuickCache, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_connection_left(keys: object) -> None:
        raise MaxConnectionsError(keys)

    await cache.put("a", "1", live_ms=60_000)
    with monkeypatch.context() as patched:
        patched.setattr(cache._client, "mget", no_connection_left)
        assert await cache.find(("a",)) == [None]
    assert not cache.resting
    assert await cache.find(("a",)) == ["1"]


async def test_without_a_server_nothing_is_found() -> None:
    cache = QuickCache(None)
    await cache.put("a", "1", live_ms=60_000)
    assert await cache.find(("a", "b")) == [None, None]
    await cache.close()


async def test_a_server_that_refuses_us_is_no_server(valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        client.config_set("requirepass", "another")
    cache = QuickCache(Secret(f"redis://:wrong-password@127.0.0.1:{valkey.port}/0"))
    assert await cache.find(("a",)) == [None]
    assert cache.resting
    await cache.close()

"""Nonces count once, also when the database is away, crashes, or comes back empty."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest

from exchange.auth import nonces as nonces_module
from exchange.auth.nonces import PURGE_MARGIN_MS, Nonces, Verdict
from exchange.auth.store import Store
from exchange.runtime.errors import ErrorReason, ServiceError
from tests.integration.auth.gate_rig import ORDERS, WINDOW_MS, GateRig, MovedClock, running_gate
from tests.integration.auth.test_gate import add_user
from tests.postgres_fixture import Database, PostgresServer, running_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

KEY = "ak_" + "k" * 32


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that may be killed."""
    with running_postgres(durable=False) as found:
        yield found


@pytest.fixture
async def crashing(server: PostgresServer) -> AsyncIterator[GateRig]:
    database = server.create_database()
    async with running_gate(database) as gate:
        yield gate
    server.drop_database(database.name)


@pytest.fixture
def crashing_user(crashing: GateRig) -> int:
    return add_user(crashing.database, "trader@example.com")


async def test_a_replay_across_a_crash_of_the_database_is_refused(
    crashing: GateRig, crashing_user: int, server: PostgresServer
) -> None:
    gate = crashing
    _, signer = await gate.make_key(crashing_user)
    headers = signer.rest_headers("GET", ORDERS)
    async with running_gate(gate.database, clock=gate.clock) as other:
        assert (await other.ask(headers)).status == 200
        server.kill()
        assert (await gate.signed(signer)).reason == "AUTH_UNAVAILABLE"
        server.start()
        # The table is empty now, and this instance never saw the nonce: only the epoch stands in the way.
        replayed = await gate.until_answered(lambda: gate.ask(headers))
        assert (replayed.status, replayed.reason) == (401, "TIMESTAMP_OUT_OF_WINDOW")
        with psycopg.connect(gate.database.admin_url) as connection:
            nonces = connection.execute("SELECT api_key FROM request_nonces").fetchall()
        assert len(nonces) == 1, "it was new to the table"
        # Others are refused, too, until no timestamp from before the crash could be taken any more.
        assert (await gate.signed(signer)).reason == "TIMESTAMP_OUT_OF_WINDOW"
        _, newer = await gate.make_key(crashing_user)
        assert (await gate.signed(newer)).status == 200, "a key that is younger than the crash has nothing to replay"
        gate.clock.moved_s += 2 * WINDOW_MS / 1_000
        assert (await gate.signed(signer)).status == 200


async def test_while_the_database_is_away_nothing_opens(
    crashing: GateRig, crashing_user: int, server: PostgresServer
) -> None:
    _, signer = await crashing.make_key(crashing_user)
    assert (await crashing.signed(signer)).status == 200
    server.stop()
    headers = signer.rest_headers("GET", ORDERS)
    answer = await crashing.ask(headers)
    assert (answer.status, answer.reason) == (503, "AUTH_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    grpc = await crashing.ask(dict(signer.grpc_headers("/a/B", b"")), "POST", "/a/B", grpc=True)
    assert grpc.grpc_error == (14, "AUTH_UNAVAILABLE")
    server.start()
    # What was not taken may come again, once.
    assert (await crashing.until_answered(lambda: crashing.ask(headers))).status == 200
    assert (await crashing.ask(headers)).reason == "NONCE_REUSED"


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    found = await Store.open(database.auth_url)
    yield found
    await found.close()


async def take(nonces: Nonces, nonce: str, signed_ms: int, created_ms: int = 0) -> Verdict:
    return await nonces.take(KEY, nonce, signed_ms=signed_ms, key_created_ms=created_ms)


async def test_an_epoch_stands_once_it_has_begun(store: Store) -> None:
    clock = MovedClock()
    nonces = Nonces(store, clock, window_ms=WINDOW_MS)
    since_ms = await nonces.begin()
    assert clock.ms() + WINDOW_MS - 1_000 < since_ms <= clock.ms() + WINDOW_MS + 1_000
    clock.moved_s += 100
    assert await nonces.begin() == since_ms
    assert await take(nonces, "before", since_ms - 1) is Verdict.BEFORE_EPOCH
    assert await take(nonces, "behind", since_ms) is Verdict.TAKEN
    # Of a key that was made a moment before the epoch something may have been taken; of a later one nothing.
    assert await take(nonces, "older", since_ms - 1, since_ms - WINDOW_MS - 1) is Verdict.BEFORE_EPOCH
    assert await take(nonces, "newer", since_ms - 1, since_ms - WINDOW_MS) is Verdict.TAKEN


async def test_an_epoch_begins_by_the_clock_that_is_ahead(store: Store) -> None:
    clock = MovedClock()
    clock.moved_s = -600
    ahead_ms = MovedClock().ms()
    assert await Nonces(store, clock, window_ms=WINDOW_MS).begin() >= ahead_ms + WINDOW_MS


async def test_a_nonce_is_kept_until_its_timestamp_is_refused_everywhere(store: Store) -> None:
    clock = MovedClock()
    nonces = Nonces(store, clock, window_ms=WINDOW_MS)
    signed_ms = clock.ms() + WINDOW_MS
    assert await take(nonces, "one", signed_ms, created_ms=signed_ms) is Verdict.TAKEN
    clock.moved_s += (2 * WINDOW_MS + PURGE_MARGIN_MS) / 1_000 - 1
    assert await nonces.purge() == 0
    assert await take(Nonces(store, clock, window_ms=WINDOW_MS), "one", signed_ms) is Verdict.REUSED
    clock.moved_s += 2
    assert await nonces.purge() == 1


async def test_what_waits_goes_in_by_few_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    nonces = Nonces(store, MovedClock(), window_ms=WINDOW_MS)
    await nonces.begin()
    batches: list[int] = []
    insert = nonces._insert

    async def counted(batch: list[nonces_module._Waiting]) -> tuple[set[tuple[str, str]], int]:
        batches.append(len(batch))
        return await insert(batch)

    monkeypatch.setattr(nonces, "_insert", counted)
    later = MovedClock().ms() + 10 * WINDOW_MS
    verdicts = await asyncio.gather(*(take(nonces, f"n{number}", later) for number in range(500)))
    assert set(verdicts) == {Verdict.TAKEN}
    assert sum(batches) == 500
    assert len(batches) <= 2


async def test_more_than_may_wait_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces_module, "MAX_WAITING", 3)
    nonces = Nonces(store, MovedClock(), window_ms=WINDOW_MS)
    later = MovedClock().ms() + 10 * WINDOW_MS
    answers = await asyncio.gather(*(take(nonces, f"n{number}", later) for number in range(5)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, ServiceError)]
    assert [error.reason for error in refused] == [ErrorReason.OVERLOADED] * 2
    assert answers.count(Verdict.TAKEN) == 3


async def test_what_is_remembered_is_bounded_and_the_table_knows_the_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nonces_module, "MAX_REMEMBERED", 10)
    nonces = Nonces(store, MovedClock(), window_ms=WINDOW_MS)
    later = MovedClock().ms() + 10 * WINDOW_MS
    for number in range(50):
        assert await take(nonces, f"n{number}", later) is Verdict.TAKEN
    assert len(nonces._recent) + len(nonces._older) <= 20
    for number in range(50):
        assert await take(nonces, f"n{number}", later) is Verdict.REUSED


async def test_a_failure_that_nobody_thought_of_lets_nobody_in_and_passes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonces = Nonces(store, MovedClock(), window_ms=WINDOW_MS)
    later = MovedClock().ms() + 10 * WINDOW_MS
    monkeypatch.setattr(nonces_module, "_INSERT", "SELECT no_such_column")
    with pytest.raises(ServiceError) as refused:
        await take(nonces, "one", later)
    assert refused.value.reason == ErrorReason.AUTH_UNAVAILABLE
    monkeypatch.undo()
    assert await take(nonces, "one", later) is Verdict.TAKEN
    await nonces.stop()


async def test_a_caller_who_gives_up_takes_nobody_along(store: Store) -> None:
    nonces = Nonces(store, MovedClock(), window_ms=WINDOW_MS)
    later = MovedClock().ms() + 10 * WINDOW_MS
    gone, stays = (asyncio.create_task(take(nonces, name, later)) for name in ("gone", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays is Verdict.TAKEN
    assert await take(nonces, "gone", later) is Verdict.REUSED

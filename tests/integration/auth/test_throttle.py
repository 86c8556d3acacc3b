"""Guessing is slowed down and locked out by name and by address; PostgreSQL knows, whatever becomes of Valkey."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psycopg
import pyotp
import pytest

from exchange.auth.contract import Caller
from exchange.auth.standing import Standing
from exchange.auth.throttle_policy import ThrottlePolicy
from exchange.auth.users import LOCK_ALL, LOCK_LOGIN
from exchange.runtime.clock import ManualClock
from exchange.runtime.errors import ServiceError
from tests.integration.auth.rig import HERE, PASSWORD, Rig, running_rig
from tests.integration.journal.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.postgres_fixture import Database
    from tests.valkey_fixture import ValkeyServer

ALICE = "alice@example.com"
NOBODY = "nobody@example.com"
POLICY = ThrottlePolicy()


async def answer(rig: Rig, email: str, password: str = "wrong password", address: str = HERE) -> tuple[str, float]:
    """The reason that a log-in gets, OK for none, and how long it is told to wait."""
    try:
        await rig.log_in(email, password, address=address)
    except ServiceError as error:
        return error.reason_name, error.retry_after_seconds or 0.0
    return "OK", 0.0


async def fail_until_locked(rig: Rig, email: str, *, addresses: int = 1) -> None:
    """Use up the name's failures, with the delays in between over in a moment."""
    for number in range(POLICY.name_limit):
        reason, _ = await answer(rig, email, address=f"203.0.113.{number % addresses + 1}")
        assert reason == "CREDENTIALS_REFUSED"
        if number < POLICY.name_limit - 1:
            rig.let_pass(POLICY.name_wait_s(number + 1))


@pytest.fixture
async def cached(database: Database, valkey: ValkeyServer) -> AsyncIterator[Rig]:
    """An auth service with Valkey."""
    async with running_rig(database, valkey.url) as found:
        yield found


def row_of_lock(rig: Rig) -> tuple[str | None, bool]:
    """What stops alice, and whether that has an end."""
    with psycopg.connect(rig.database.admin_url) as connection:
        row = connection.execute(
            "SELECT lock_scope, locked_until IS NOT NULL FROM users WHERE email = %s", (ALICE,)
        ).fetchone()
    assert row is not None
    return row


def argon2_runs(rig: Rig) -> float:
    return float(rig.metrics.argon2.labels("verify")._value.get())


@pytest.mark.parametrize("email", [ALICE, NOBODY])
async def test_delays_grow_and_then_the_name_is_locked_whether_or_not_it_is_known(rig: Rig, email: str) -> None:
    await rig.add_user(ALICE)
    told = [await answer(rig, email)]
    while told[-1][1] <= POLICY.max_delay_s:
        rig.let_pass(told[-1][1])
        told.append(await answer(rig, email))
    refused = ("CREDENTIALS_REFUSED", 0.0)
    expected = [refused] * 4
    for wait in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0):
        expected += [("TOO_MANY_ATTEMPTS", wait), refused]
    assert told == [*expected, ("TOO_MANY_ATTEMPTS", 900.0)]
    rig.let_pass(900)
    assert await answer(rig, email) == refused, "a lock has an end, and what led to it is past"


async def test_guesses_from_many_addresses_lock_the_name_they_all_try(rig: Rig) -> None:
    await rig.add_user(ALICE)
    await fail_until_locked(rig, ALICE, addresses=POLICY.name_limit)
    runs = argon2_runs(rig)
    for address in (HERE, "203.0.113.1", "2001:db8::1"):
        assert await answer(rig, ALICE, PASSWORD, address) == ("TOO_MANY_ATTEMPTS", 900.0), "the right one, too"
    assert argon2_runs(rig) == runs, "nobody looked at it"
    assert row_of_lock(rig) == (LOCK_LOGIN, True)
    throttled = [(event.address, event.actor, event.details) for event in rig.recorded.events[-3:]]
    assert throttled == [(address, "", "by name") for address in (HERE, "203.0.113.1", "2001:db8::1")]
    assert ALICE not in repr(rig.recorded.events)
    await rig.throttle.close()
    (entry,) = rig.recorded.entries
    assert (entry.action, entry.actor) == ("account.locked", str((await rig.user(ALICE)).user_id))
    assert ALICE not in repr(entry)


async def test_many_names_from_one_address_block_the_address_for_every_name(rig: Rig) -> None:
    await rig.add_user(ALICE)
    for number in range(POLICY.address_limit):
        assert (await answer(rig, f"user-{number}@example.com"))[0] == "CREDENTIALS_REFUSED"
    assert await answer(rig, ALICE, PASSWORD) == ("TOO_MANY_ATTEMPTS", 900.0)
    assert (await answer(rig, ALICE, PASSWORD, "198.51.100.8"))[0] == "OK", "her own address is none of it"
    assert rig.metrics.attempts_refused.labels("address")._value.get() == 1


async def test_all_addresses_of_one_ipv6_network_count_as_one(rig: Rig) -> None:
    await rig.add_user(ALICE)
    for number in range(POLICY.address_limit):
        await answer(rig, f"user-{number}@example.com", address=f"2001:db8:0:1::{number + 1:x}")
    blocked = await answer(rig, ALICE, PASSWORD, "2001:db8:0:1:ffff:ffff:ffff:ffff")
    assert blocked == ("TOO_MANY_ATTEMPTS", 900.0)
    assert (await answer(rig, ALICE, PASSWORD, "2001:db8:0:2::1"))[0] == "OK"


async def test_guesses_at_the_same_time_get_no_further_than_one_by_one(database: Database) -> None:
    async with running_rig(database) as one, running_rig(database) as other:
        await one.add_user(ALICE)
        answers = await asyncio.gather(
            # From addresses of their own: the lock of the name alone holds them back.
            *(
                answer(instance, ALICE, f"guess {n}", f"203.0.113.{10 * n + index}")
                for n in range(20)
                for index, instance in enumerate((one, other))
            )
        )
        looked_at = [reason for reason, _ in answers if reason == "CREDENTIALS_REFUSED"]
        assert len(looked_at) == argon2_runs(one) + argon2_runs(other) == POLICY.free_attempts + 1
        assert len(one.attempts()) == POLICY.free_attempts + 1, "what is refused makes no row"


async def test_a_guess_that_was_never_decided_counts_as_a_failure(rig: Rig) -> None:
    await rig.add_user(ALICE)
    for _ in range(POLICY.free_attempts + 1):
        await rig.throttle.admit(ALICE, HERE)
    assert (await answer(rig, ALICE, PASSWORD))[0] == "TOO_MANY_ATTEMPTS"


async def test_an_unknown_name_and_a_wrong_password_cannot_be_told_apart(rig: Rig) -> None:
    await rig.add_user(ALICE)
    await rig.add_user("new@example.com", verified=False)
    seen = set()
    for number, email in enumerate((ALICE, NOBODY, "new@example.com")):
        before = argon2_runs(rig)
        with pytest.raises(ServiceError) as refused:
            await rig.log_in(email, "wrong password", address=f"203.0.113.{number}")
        assert argon2_runs(rig) == before + 1
        seen.add(refused.value.to_status().SerializeToString(deterministic=True))
    assert len(seen) == 1
    assert [reason for _, _, reason in rig.attempts()] == ["wrong password", "unknown user", "wrong password"]


async def test_a_success_forgives_the_name_and_a_password_without_its_code_does_not(database: Database) -> None:
    clock = ManualClock(time.time_ns())
    async with running_rig(database, clock=clock) as rig:
        user = await rig.add_user(ALICE)
        secret, _ = await rig.second_factor.begin(user)
        totp, now = pyotp.TOTP(secret), clock.time_ns() // 10**9
        await rig.second_factor.confirm(user, totp.at(now - 30))
        for _ in range(POLICY.free_attempts):
            assert (await answer(rig, ALICE))[0] == "CREDENTIALS_REFUSED"
        assert (await answer(rig, ALICE, PASSWORD))[0] == "SECOND_FACTOR_REQUIRED"
        with pytest.raises(ServiceError, match="wrong"):
            await rig.log_in(ALICE, PASSWORD, code="no code")
        assert (await answer(rig, ALICE, PASSWORD))[0] == "TOO_MANY_ATTEMPTS", "the code was the fourth wrong guess"
        rig.let_pass(1)
        await rig.log_in(ALICE, PASSWORD, code=totp.at(now))
        for _ in range(POLICY.free_attempts):
            assert (await answer(rig, ALICE))[0] == "CREDENTIALS_REFUSED"
        assert [reason for _, _, reason in rig.attempts()][3:] == ["wrong code", *["wrong password"] * 3]


async def test_codes_of_the_second_factor_are_locked_out_as_passwords_are(database: Database) -> None:
    clock = ManualClock(time.time_ns())
    async with running_rig(database, clock=clock) as rig:
        user = await rig.add_user(ALICE)
        secret, _ = await rig.second_factor.begin(user)
        totp, now = pyotp.TOTP(secret), clock.time_ns() // 10**9
        await rig.second_factor.confirm(user, totp.at(now - 30))
        for number in range(POLICY.name_limit):
            with pytest.raises(ServiceError, match="wrong"):
                await rig.log_in(ALICE, code="no code", address=f"203.0.113.{number}")
            if number < POLICY.name_limit - 1:
                rig.let_pass(POLICY.name_wait_s(number + 1))
        with pytest.raises(ServiceError, match="too many attempts"):
            await rig.log_in(ALICE, code=totp.at(now))


async def test_a_lock_survives_valkey_and_the_service(database: Database, valkey: ValkeyServer) -> None:
    async with running_rig(database, valkey.url) as rig:
        await rig.add_user(ALICE)
        for number in range(POLICY.name_limit):
            assert (await answer(rig, ALICE))[0] == "CREDENTIALS_REFUSED"
            if number < POLICY.name_limit - 1:
                rig.let_pass(POLICY.name_wait_s(number + 1))
        assert await answer(rig, ALICE, PASSWORD) == ("TOO_MANY_ATTEMPTS", 900.0)
        valkey.flush()
        assert await answer(rig, ALICE, PASSWORD) == ("TOO_MANY_ATTEMPTS", 900.0)
        valkey.kill()
        assert await answer(rig, ALICE, PASSWORD) == ("TOO_MANY_ATTEMPTS", 900.0)
        assert rig.cache.resting
    async with running_rig(database, valkey.url) as restarted:
        assert (await answer(restarted, ALICE, PASSWORD))[0] == "TOO_MANY_ATTEMPTS"
        valkey.start()
        assert (await answer(restarted, ALICE, PASSWORD))[0] == "TOO_MANY_ATTEMPTS"
        restarted.let_pass(900)
        assert (await answer(restarted, ALICE, PASSWORD))[0] == "OK"


async def test_valkey_says_no_without_the_database_and_nothing_else(cached: Rig, valkey: ValkeyServer) -> None:
    await cached.add_user(ALICE)
    await fail_until_locked(cached, ALICE)
    assert (await answer(cached, ALICE))[0] == "TOO_MANY_ATTEMPTS"
    with psycopg.connect(cached.database.admin_url, autocommit=True) as connection, valkey.client() as client:
        connection.execute("DELETE FROM failed_login_attempts")
        assert await answer(cached, ALICE) == ("TOO_MANY_ATTEMPTS", 900.0), "from Valkey: the table is empty"
        (key,) = client.keys("*")
        assert 0 < client.pttl(key) <= 5_000
        assert ALICE not in key
        for nonsense in ("", "soon", "-1", "9" * 40, "²"):
            client.set(key, nonsense)
            assert (await answer(cached, ALICE, "wrong"))[0] == "CREDENTIALS_REFUSED", nonsense
            connection.execute("DELETE FROM failed_login_attempts")


@pytest.mark.parametrize("valkey_is", ["up", "down", "away"])
async def test_an_operators_unlock_works_at_once(database: Database, valkey: ValkeyServer, valkey_is: str) -> None:
    url = None if valkey_is == "away" else valkey.url
    async with running_rig(database, url) as rig, running_rig(database, url) as other:
        user = await rig.add_user(ALICE)
        if valkey_is == "down":
            valkey.kill()
        await fail_until_locked(rig, ALICE, addresses=2)
        for instance in (rig, other):
            assert (await answer(instance, ALICE, PASSWORD))[0] == "TOO_MANY_ATTEMPTS"
        await rig.admin.unlock(user.user_id, by=Standing.STAFF)
        # Another instance had seen the lock just before, and tells Valkey just now.
        await other.throttle._remember_no(f"pincex:auth:wait:n:{other.throttle.name_hash(ALICE).hex()}", 900.0)
        assert row_of_lock(rig) == (None, False)
        for instance in (rig, other):
            assert (await answer(instance, ALICE, PASSWORD))[0] == "OK"


async def test_a_success_is_forgotten_by_valkey_at_once_too(cached: Rig) -> None:
    user = await cached.add_user(ALICE)
    for _ in range(POLICY.free_attempts + 1):
        await answer(cached, ALICE)
    cached.let_pass(1)
    under_way = await cached.throttle.admit(ALICE, HERE)
    assert await answer(cached, ALICE, PASSWORD) == ("TOO_MANY_ATTEMPTS", 2.0), "and Valkey knows"
    await cached.throttle.succeeded(under_way)
    assert (await answer(cached, ALICE, PASSWORD))[0] == "OK"
    with psycopg.connect(cached.database.admin_url) as connection:
        assert connection.execute("SELECT user_id FROM user_sessions").fetchall() == [(user.user_id,)]


async def test_successes_and_an_unlock_at_the_same_time_do_not_wait_for_each_other(database: Database) -> None:
    async with running_rig(database) as one, running_rig(database) as other:
        user = await one.add_user(ALICE)
        for _ in range(10):
            started = [await rig.throttle.admit(ALICE, HERE) for rig in (one, other, one)]
            await asyncio.gather(
                *(rig.throttle.succeeded(attempt) for rig, attempt in zip((one, other, other), started, strict=True)),
                one.admin.unlock(user.user_id, by=Standing.STAFF),
            )
        assert one.attempts() == []


async def test_guesses_at_many_names_at_once_get_no_further_than_one_by_one(database: Database) -> None:
    async with running_rig(database) as one, running_rig(database) as other:
        answers = await asyncio.gather(
            *(answer(instance, f"user-{n}@example.com") for n in range(20) for instance in (one, other))
        )
    looked_at = [reason for reason, _ in answers if reason == "CREDENTIALS_REFUSED"]
    assert len(looked_at) == POLICY.address_limit


async def test_a_guess_that_was_under_way_does_not_lock_again_what_was_unlocked(rig: Rig) -> None:
    user = await rig.add_user(ALICE)
    for number in range(POLICY.name_limit - 1):
        await answer(rig, ALICE)
        rig.let_pass(POLICY.name_wait_s(number + 1))
    last = await rig.throttle.admit(ALICE, HERE)
    await rig.admin.unlock(user.user_id, by=Standing.STAFF)
    await rig.throttle.failed(last, user.user_id, "wrong password")
    assert row_of_lock(rig) == (None, False)
    assert (await answer(rig, ALICE, PASSWORD))[0] == "OK"


async def test_what_strangers_can_cause_does_not_end_the_owners_session(rig: Rig) -> None:
    await rig.add_user(ALICE)
    opened = await rig.log_in(ALICE)
    await fail_until_locked(rig, ALICE)
    renewed = await rig.sessions.refresh(opened.refresh_token, Caller(HERE))
    assert renewed.session.session_id == opened.session.session_id
    with psycopg.connect(rig.database.admin_url) as connection:
        assert connection.execute("SELECT count(*) FROM auth_revocations").fetchone() == (0,)


async def test_failed_attempts_do_not_soften_an_operators_lock(rig: Rig) -> None:
    user = await rig.add_user(ALICE)
    await rig.admin.lock(user.user_id, "stolen laptop", by=Standing.STAFF)
    await fail_until_locked(rig, ALICE)
    assert row_of_lock(rig) == (LOCK_ALL, False)
    rig.let_pass(900)
    assert (await answer(rig, ALICE, PASSWORD))[0] == "ACCOUNT_LOCKED"


async def test_attempts_are_forgotten_after_thirty_days(rig: Rig) -> None:
    await answer(rig, NOBODY)
    rig.let_pass(30 * 86_400 + 1)
    await answer(rig, NOBODY)
    running = asyncio.create_task(rig.throttle.run())
    await until(lambda: len(rig.attempts()) == 1)
    running.cancel()
    assert await rig.throttle.purge() == 0, "the new one stays"


async def test_an_address_that_is_none_is_refused_before_the_database(rig: Rig) -> None:
    with pytest.raises(ValueError, match="not appear to be"):
        await rig.throttle.admit(ALICE, "here")
    assert rig.attempts() == []


async def test_an_ipv4_address_is_the_same_however_it_is_written(rig: Rig) -> None:
    await answer(rig, NOBODY, address="::ffff:198.51.100.7")
    assert [address for _, address, _ in rig.attempts()] == ["198.51.100.7"]

"""argon2id: the same work for everybody, bounded, and beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from threading import Event

import argon2
import pytest
from prometheus_client import CollectorRegistry

from exchange.auth import passwords as passwords_module
from exchange.auth.config import Argon2Parameters
from exchange.auth.metrics import AuthMetrics
from exchange.auth.passwords import MAX_WAITING, Passwords
from exchange.runtime.errors import ErrorReason, ServiceError

CHEAP = Argon2Parameters(memory_kib=64, iterations=1, parallelism=1)
REGISTRY = CollectorRegistry()
METRICS = AuthMetrics(REGISTRY)


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(CHEAP, METRICS)
    yield made
    made.close()


def verified() -> float:
    found = REGISTRY.get_sample_value("pincex_auth_argon2_total", {"work": "verify"})
    assert found is not None
    return found


async def test_a_password_is_right_or_wrong(passwords: Passwords) -> None:
    stored = await passwords.hash("correct horse")
    assert stored.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert (await passwords.verify(stored, "correct horse")).right
    assert not (await passwords.verify(stored, "correct horsf")).right


async def test_a_user_that_does_not_exist_costs_the_same_work_and_is_never_right(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    real = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, against: str, given: str) -> bool:
        ran.append(against.split("$")[3])
        return real(self, against, given)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    stored = await passwords.hash("correct horse")
    before = verified()
    for against in (stored, None):
        assert not (await passwords.verify(against, "wrong")).right
    assert verified() == before + 2
    assert ran == ["m=64,t=1,p=1"] * 2


async def test_a_hash_of_other_parameters_still_counts_and_is_told_to_be_outdated(passwords: Passwords) -> None:
    older = argon2.PasswordHasher(time_cost=2, memory_cost=32, parallelism=1).hash("correct horse")
    verdict = await passwords.verify(older, "correct horse")
    assert (verdict.right, verdict.outdated) == (True, True)
    assert not (await passwords.verify(await passwords.hash("correct horse"), "correct horse")).outdated


async def test_what_looks_the_same_is_the_same_password(passwords: Passwords) -> None:
    assert (await passwords.verify(await passwords.hash("caf\u00e9 au lait!!"), "cafe\u0301 au lait!!")).right


async def test_the_loop_goes_on_while_argon2_runs_and_too_many_are_refused(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Event()

    def slow(given: str) -> str:
        release.wait(10)
        return given

    monkeypatch.setattr(passwords_module, "_normal", slow)
    waiting = [asyncio.create_task(passwords.hash("correct horse")) for _ in range(MAX_WAITING)]
    # Each task has come as far as it can: the loop is free, the threads are not.
    await asyncio.sleep(0)
    with pytest.raises(ServiceError) as caught:
        await passwords.verify(None, "correct horse")
    assert caught.value.reason == ErrorReason.OVERLOADED
    assert not any(task.done() for task in waiting)
    release.set()
    assert len(await asyncio.gather(*waiting)) == MAX_WAITING
    await passwords.verify(None, "correct horse")

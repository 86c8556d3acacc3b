"""What an instance knows of revocations: all, in order, for as long as a token can be left; else it says that it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exchange.runtime.clock import ManualClock
from exchange.runtime.identity import revocations as module
from exchange.runtime.identity.revocations import STALE_AFTER_S, Revocations
from exchange.runtime.identity.store import LONGEST_TOKEN_S, REVOCATIONS_A_READ, Revocation
from exchange.runtime.principal import Principal


class Table:
    """The rows of auth_revocations."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.rows: list[tuple[float, Revocation]] = []
        self.away = False
        self.reads = 0

    def revoke(self, kind: str, subject: str, generation: int = 0, *, age_s: float = 0.0) -> None:
        sequence = self.rows[-1][1].sequence + 1 if self.rows else 1
        row = Revocation(sequence, kind, subject, generation, "100001", (), cancel_orders=False, reason="")
        self.rows.append((self.clock.monotonic() - age_s, row))

    async def first_sequence(self) -> int:
        self._check()
        oldest = self.clock.monotonic() - LONGEST_TOKEN_S
        return max((row.sequence for at, row in self.rows if at < oldest), default=0)

    async def revocations(self, first: int) -> list[Revocation]:
        self._check()
        self.reads += 1
        now = self.clock.monotonic()
        found = [
            Revocation(r.sequence, r.kind, r.subject, r.generation, r.user_id, (), False, "", now - at)
            for at, r in self.rows
            if r.sequence >= first
        ]
        return found[:REVOCATIONS_A_READ]

    def _check(self) -> None:
        if self.away:
            raise OSError("away")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def table(clock: ManualClock) -> Table:
    return Table(clock)


@pytest.fixture
def known(table: Table, clock: ManualClock) -> Revocations:
    return Revocations(table, clock)


def of_session(session: str, user: str = "100001", generation: int = 1) -> Principal:
    return Principal(user, frozenset(), "token", user=user, session=session, generation=generation)


def of_key(key: str) -> Principal:
    return Principal("100001", frozenset(), "api-key", user="100001", api_key=key, generation=1)


def of_certificate(uri: str) -> Principal:
    return Principal("100001", frozenset(), "certificate", user="100001", certificate=uri, generation=1)


async def test_sessions_and_keys_are_void_for_good_and_others_are_not(table, known):
    table.revoke("session", "s-1")
    table.revoke("api_key", "ak_1")
    await known.poll()
    assert known.is_void(of_session("s-1"))
    assert known.is_void(of_key("ak_1"))
    assert not known.is_void(of_certificate("spiffe://firm"))
    assert not known.is_void(of_session("s-2"))
    assert not known.is_void(of_session("ak_1"))
    assert not known.is_void(of_key("s-1"))


async def test_what_a_retired_signing_key_signed_is_void_whose_ever_it_is(table, known):
    table.revoke("signing_key", "k-1")
    await known.poll()
    for principal in (of_session("s-1"), of_key("ak_1"), of_certificate("spiffe://firm")):
        assert known.is_void(replace(principal, signing_key="k-1"))
        assert not known.is_void(replace(principal, signing_key="k-2"))
    assert not known.is_void(of_session("k-1"))


async def test_a_user_loses_the_tokens_of_earlier_generations_only(table, known):
    table.revoke("user", "100001", 3)
    table.revoke("user", "100001", 2)
    await known.poll()
    assert known.is_void(of_session("s-1", generation=2))
    assert not known.is_void(of_session("s-1", generation=3))
    assert not known.is_void(of_session("s-1", user="100002", generation=2))
    assert known.is_void(of_certificate("spiffe://firm"))


async def test_more_rows_than_a_read_takes_are_all_there_before_it_is_current(table, known):
    for number in range(REVOCATIONS_A_READ + 5):
        table.revoke("session", f"s-{number}")
    assert not known.is_current()
    await known.poll()
    assert known.is_current()
    assert known.is_void(of_session(f"s-{REVOCATIONS_A_READ + 4}"))
    assert known.sequence == REVOCATIONS_A_READ + 5


async def test_it_is_current_until_the_source_has_been_away_too_long_and_again_after(table, known, clock):
    await known.poll()
    clock.advance(STALE_AFTER_S)
    assert known.is_current()
    table.away = True
    with pytest.raises(OSError, match="away"):
        await known.poll()
    clock.advance(0.1)
    assert not known.is_current()
    table.away = False
    table.revoke("session", "s-1")
    await known.poll()
    assert known.is_current()
    assert known.is_void(of_session("s-1"))


async def test_what_no_token_can_be_left_of_is_forgotten_and_never_read(table, known, clock):
    table.revoke("session", "old", age_s=LONGEST_TOKEN_S + 1)
    table.revoke("session", "young", age_s=LONGEST_TOKEN_S - 100)
    table.revoke("user", "100001", 2)
    await known.poll()
    assert known.held == 2
    assert not known.is_void(of_session("old", generation=2))
    assert known.is_void(of_session("young", generation=2))
    clock.advance(101)
    await known.poll()
    assert known.held == 1
    assert not known.is_void(of_session("young", generation=2))
    assert known.is_void(of_session("other"))
    clock.advance(LONGEST_TOKEN_S)
    await known.poll()
    assert known.held == 0
    assert not known.is_void(of_session("other"))


async def test_forgetting_the_first_of_two_revocations_keeps_the_second(table, known, clock):
    table.revoke("session", "s-1", age_s=LONGEST_TOKEN_S - 1)
    table.revoke("user", "100001", 2, age_s=LONGEST_TOKEN_S - 1)
    table.revoke("session", "s-1")
    table.revoke("user", "100001", 3)
    await known.poll()
    clock.advance(2)
    await known.poll()
    assert known.held == 2
    assert known.is_void(of_session("s-1", generation=3))
    assert known.is_void(of_session("s-2", generation=2))


async def test_memory_is_bounded_and_whoever_cannot_be_remembered_keeps_all_out(table, known, clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_HELD", 10)
    for number in range(30):
        table.revoke("session", f"s-{number}", age_s=30 - number)
    await known.poll()
    assert not known.is_current()
    reads = table.reads
    await known.poll()
    assert table.reads == reads
    clock.advance(LONGEST_TOKEN_S)
    await known.poll()
    assert known.is_current()
    assert known.held == 0


async def test_a_database_of_an_earlier_time_is_noticed_and_read_anew(table, known):
    table.revoke("session", "s-1")
    table.revoke("session", "s-2")
    await known.poll()
    del table.rows[:]
    table.revoke("session", "s-3")
    await known.poll()
    assert known.is_void(of_session("s-3"))
    assert known.is_void(of_session("s-2"))


async def test_who_waits_for_news_is_woken_by_the_next_revocation(table, known):
    await known.poll()
    waiting = known.news()
    table.revoke("session", "s-1")
    await known.poll()
    table.revoke("session", "s-2")
    await known.poll()
    await waiting
    assert [row.subject for _, row in known.since(1)] == ["s-2"]
    assert [row.subject for _, row in known.since(0)] == ["s-1", "s-2"]

"""What goes on without a call: screening, expiry, telling the auth service; each survives the end of the process anywhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from exchange.kyc import worker as worker_module
from exchange.kyc.screening import ScreeningAway
from exchange.kyc.service.trading_tiers import AuthLink
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import Secret
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.identity.service_token import ServiceTokens
from exchange.runtime.internal_client import InternalClient
from pincex.kyc.v1 import kyc_service_pb2 as pb
from tests.integration.auth.auth_app import eventually, running_auth
from tests.integration.kyc.rig import NAME, FakeAuth, Rig, away, config, new_user, running_kyc
from tests.postgres_fixture import Database

if TYPE_CHECKING:
    from pathlib import Path

    from exchange.kyc.person import Person
    from tests.postgres_fixture import PostgresServer


async def test_a_tier_that_ends_is_taken_back_on_record(rig: Rig) -> None:
    user = new_user()
    rig.auth.tiers[user] = "standard"
    case_id = await rig.approved(user)
    await rig.kyc.worker.round()
    rig.let_expire(user)
    assert (await rig.kyc.tiers.of(user)).tier == 0, "at once, not when the worker comes by"
    await rig.kyc.worker.round()
    assert (await rig.status(user)).status == pb.EXPIRED
    assert (await rig.look(case_id)).decided_by == "90001"
    assert rig.auth.calls == [(user, "professional"), (user, "standard")]
    assert [one.details for one in rig.trail.happenings] == [f'{{"user_id": "{user}", "case_id": "{case_id}"}}']
    changes = (await rig.admin.GetUserTier(pb.GetUserTierRequest(user_id=user))).changes
    assert [(one.tier, one.cause) for one in changes] == [(0, "expired"), (2, "approved")]


async def test_a_tier_that_was_renewed_in_time_does_not_end(rig: Rig) -> None:
    user = new_user()
    await rig.approved(user)
    await rig.approved(user, request_id="r2")
    rig.rows("UPDATE kyc_user_tiers SET expire_at = clock_timestamp() WHERE user_id = %s", user)
    await rig.kyc.worker.round()
    assert (await rig.status(user)).status == pb.APPROVED, "the case itself says that it holds"


@pytest.mark.parametrize(
    ("present", "given"), [("standard", ["professional"]), ("professional", []), ("institution", []), (None, [])]
)
async def test_trading_limits_follow_unless_an_operator_gave_others(
    rig: Rig, present: str | None, given: list[str]
) -> None:
    user = new_user()
    if present is not None:
        rig.auth.tiers[user] = present
    await rig.approved(user)
    await rig.kyc.worker.round()
    await rig.kyc.worker.round()
    assert rig.auth.calls == [(user, tier) for tier in given]


async def test_the_auth_service_is_told_later_where_it_is_away(rig: Rig) -> None:
    user, other = new_user(), new_user()
    rig.auth.tiers |= {user: "standard", other: "standard"}
    rig.auth.fails[user] = away()
    await rig.approved(user)
    await rig.approved(other)
    await rig.kyc.worker.round()
    assert rig.auth.calls == [], "it is away for all"
    assert rig.kyc.metrics.untold._value.get() >= 2
    rig.auth.fails[user] = ServiceError(ErrorReason.INTERNAL)
    await rig.kyc.worker.round()
    assert rig.auth.calls == [(other, "professional")], "one that is refused does not hold up the others"
    del rig.auth.fails[user]
    rig.rows("UPDATE kyc_user_tiers SET tell_after = clock_timestamp() WHERE user_id = %s", user)
    await rig.kyc.worker.round()
    assert rig.auth.tiers[user] == "professional"


class Killing(FakeAuth):
    """The process ends at a moment of the call."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self.moment = moment

    async def present(self, user: str) -> str | None:
        if self.moment == "before asking":
            raise asyncio.CancelledError
        return await super().present(user)

    async def give(self, user: str, trading_tier: str, reason: str) -> None:
        if self.moment == "before telling":
            raise asyncio.CancelledError
        await super().give(user, trading_tier, reason)
        raise asyncio.CancelledError


@pytest.mark.parametrize("moment", ["before asking", "before telling", "after telling"])
async def test_what_was_to_be_told_is_told_by_the_next_process(database: Database, moment: str) -> None:
    user, auth = new_user(), Killing(moment)
    auth.tiers[user] = "standard"
    async with running_kyc(database, auth=auth) as rig:
        await rig.approved(user)
        with pytest.raises(asyncio.CancelledError):
            await rig.kyc.worker.round()
    async with running_kyc(database) as rig:
        rig.auth.tiers.update(auth.tiers)
        await rig.kyc.worker.round()
        await rig.kyc.worker.round()
        assert rig.auth.tiers[user] == "professional"
        assert len(auth.calls) + len(rig.auth.calls) == 1
        assert rig.rows("SELECT told = change_id FROM kyc_user_tiers WHERE user_id = %s", user) == [(True,)]


class Provider:
    """Answers when it is let, and remembers whom it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: type[BaseException] | None = None

    async def screen(self, person: Person) -> tuple[str, ...]:
        self.asked.append(person.full_name)
        if self.fails is not None:
            raise self.fails("the line is dead")
        return ("somebody of that name",)


async def test_a_screening_that_nobody_answers_is_made_again(database: Database) -> None:
    provider, user = Provider(), new_user()
    async with running_kyc(database, screening=provider) as rig:
        for fails in (ScreeningAway, TimeoutError):
            provider.fails = fails
            assert (await rig.status(user)).status in {pb.CASE_STATUS_UNSPECIFIED, pb.SUBMITTED}
            await rig.waiting(user)
        assert rig.kyc.metrics.failed_screenings._value.get() == 2
        assert b"the line is dead" in rig.log.getvalue()
        provider.fails = asyncio.CancelledError
        with pytest.raises(asyncio.CancelledError):
            await rig.kyc.worker.round()
    async with running_kyc(database, screening=provider) as rig:
        provider.fails = None
        await rig.kyc.worker.round()
        found = await rig.status(user)
        assert found.status == pb.IN_REVIEW
        assert provider.asked == [NAME] * 4


async def test_a_screening_counts_for_what_it_has_seen(database: Database) -> None:
    user = new_user()

    class Meanwhile(Provider):
        """While it is asked, the reviewer's question and the user's answer cross it; then the data are erased."""

        async def screen(self, person: Person) -> tuple[str, ...]:
            if not self.asked:
                rig.rows("UPDATE kyc_cases SET revision = revision + 1 WHERE user_id = %s", user)
            return await super().screen(person)

    async with running_kyc(database, screening=Meanwhile()) as rig:
        await rig.waiting(user)
        assert (await rig.status(user)).status == pb.SUBMITTED
        await rig.kyc.worker.round()
        assert (await rig.status(user)).status == pb.IN_REVIEW


async def test_many_cases_are_screened_in_turn(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "AT_ONCE", 2)
    async with running_kyc(database) as rig:
        for _ in range(5):
            await rig.submit(new_user())
        for left in (3, 1, 0):
            await rig.kyc.worker.round()
            assert rig.rows("SELECT count(*) FROM kyc_cases WHERE status = 'SUBMITTED'") == [(left,)]


async def test_one_instance_works_and_the_others_stand_by(database: Database) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    class Slow(Provider):
        async def screen(self, person: Person) -> tuple[str, ...]:
            entered.set()
            await leave.wait()
            return ()

    async with running_kyc(database, screening=Slow()) as rig, running_kyc(database) as other:
        await rig.submit(new_user())
        working = asyncio.create_task(rig.kyc.worker.round())
        await entered.wait()
        assert not await other.kyc.worker.round()
        leave.set()
        assert await working
        assert await other.kyc.worker.round()


async def test_the_loop_wakes_for_a_submission_and_outlives_what_fails(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Provider()
    provider.fails = RuntimeError
    monkeypatch.setattr(worker_module, "EVERY_S", 0.01)
    async with running_kyc(database, screening=provider) as rig:
        running = asyncio.create_task(rig.kyc.run())
        try:
            await rig.submit(new_user())
            await eventually(lambda: b"RuntimeError" in rig.log.getvalue(), "the defect is in the log")
            assert b"the line is dead" not in rig.log.getvalue(), "its text may repeat anything"
            provider.fails = None
            await eventually(
                lambda: rig.rows("SELECT status FROM kyc_cases") == [("IN_REVIEW",)], "the case is screened"
            )
            rig.rows("ALTER TABLE kyc_cases RENAME TO kyc_cases_away")
            await eventually(lambda: b"UndefinedTable" in rig.log.getvalue(), "a round failed")
            rig.rows("ALTER TABLE kyc_cases_away RENAME TO kyc_cases")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_without_a_database_rounds_wait(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "EVERY_S", 0.01)
    async with running_kyc(Database(postgres_server, "nowhere")) as rig:
        running = asyncio.create_task(rig.kyc.run())
        try:
            await eventually(lambda: rig.log.getvalue().count(b"KYC waits") > 1, "it says so, and tries again")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_real_auth_service_gives_the_limits(database: Database, screening_list: Path, tmp_path: Path) -> None:
    async with running_auth(database, tmp_path) as auth:
        tokens = ServiceTokens(Secret("what services of a test share"), SystemClock())
        client = InternalClient(f"127.0.0.1:{auth.app.ops.port}", "wallet", tokens)
        try:
            async with running_kyc(database, config(screening_list), auth=AuthLink(client)) as rig:
                address = await auth.register()
                ((user, tier),) = auth.rows("SELECT user_id::text, tier FROM users WHERE email = %s", address)
                assert tier == "standard"
                stranger = "777777"
                for one in (user, stranger):
                    await rig.approved(one)
                await rig.kyc.worker.round()
                assert auth.rows("SELECT tier FROM users WHERE user_id = %s", int(user)) == [("professional",)]
                rig.let_expire(user)
                await rig.kyc.worker.round()
                assert auth.rows("SELECT tier FROM users WHERE user_id = %s", int(user)) == [("standard",)]
                assert rig.kyc.metrics.untold._value.get() == 0
                link = AuthLink(client)
                with pytest.raises(ServiceError) as caught:
                    await link.give(user, "no such tier", "x")
                assert caught.value.reason_name == "INVALID_FIELD"
        finally:
            await client.close()
    link = AuthLink(client)
    with pytest.raises(ServiceError) as caught:
        async with asyncio.timeout(20):
            await link.present("1")
    assert caught.value.reason_name in {"UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT"}
    await client.close()

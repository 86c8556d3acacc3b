"""What support and operators see of users and do to them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from google.protobuf import duration_pb2

from exchange.auth.contract import Caller
from exchange.auth.key_requests import KeyRequest
from exchange.auth.service import positions
from exchange.auth.service.auth_admin import AuthAdminService
from exchange.auth.standing import Standing
from exchange.auth.throttle_policy import ThrottlePolicy
from exchange.runtime.errors import ServiceError
from exchange.runtime.principal import Principal
from exchange.runtime.request import RequestContext, set_request_context
from pincex.auth.v1 import auth_admin_service_pb2 as pb
from pincex.common.v1 import access_pb2
from tests.integration.auth.rig import HERE, PASSWORD, Rig, running_rig

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from exchange.auth.users import User
    from tests.postgres_fixture import Database

ALICE = "alice@example.com"
NO_ROLE: Any = 0
NEW_ROLE: Any = 99
HOUR = duration_pb2.Duration(seconds=3_600)
CONTEXT: Any = None
"""Of no use to these methods: the guard has looked at it."""
KEY = KeyRequest(
    label="bot",
    algorithm="HMAC_SHA256",
    scopes=("read",),
    allowed_addresses=(),
    account="",
    cancel_orders_on_revoke=False,
    max_orders_per_second=0,
    max_open_orders=0,
    expires_at=None,
    public_key=b"",
    request_id="1",
)


def service_of(rig: Rig) -> AuthAdminService:
    return AuthAdminService(
        admin=rig.admin,
        suspicion=rig.parts.suspicion,
        keys=rig.keys,
        certificates=rig.parts.certificates,
        signing_keys=rig.parts.signing_keys,
        clock=rig.clock,
    )


@pytest.fixture
def service(rig: Rig) -> AuthAdminService:
    return service_of(rig)


@pytest.fixture
async def alice(rig: Rig) -> User:
    return await rig.add_user(ALICE)


async def refused(call: Awaitable[object]) -> str:
    with pytest.raises(ServiceError) as caught:
        await call
    error = caught.value
    return f"{error.reason_name} {error.metadata.get('field', '')}".strip()


def query(rig: Rig, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(rig.database.admin_url) as connection:
        return connection.execute(sql).fetchall()


REVOKED = (
    "SELECT kind, subject, generation, user_id, accounts, cancel_orders, reason FROM auth_revocations ORDER BY sequence"
)


async def test_an_operators_lock_ends_everything_and_names_the_orders_to_cancel(
    rig: Rig, service: AuthAdminService, alice: User
) -> None:
    await rig.parts.sub_accounts.create(alice.user_id, "bots")
    opened = await rig.log_in(ALICE)
    user = str(alice.user_id)
    shown = await service.LockAccount(
        pb.LockAccountRequest(user_id=user, reason="stolen laptop", duration=HOUR, cancel_orders=True), CONTEXT
    )
    assert abs(shown.locked_until_time.seconds - datetime.now(UTC).timestamp() - 3_600) < 60
    assert query(rig, REVOKED) == [
        ("session", opened.session.session_id, 0, user, [], False, "locked"),
        ("user", user, 2, user, [user, f"{user}.bots"], True, "stolen laptop"),
    ]
    assert await refused(rig.log_in(ALICE)) == "ACCOUNT_LOCKED"
    assert await refused(rig.log_in(ALICE, "wrong password")) == "CREDENTIALS_REFUSED", "to the right password only"
    refresh = rig.sessions.refresh
    assert await refused(refresh(opened.refresh_token, Caller(HERE))) == "CREDENTIAL_REVOKED"

    unlocked = await service.UnlockAccount(pb.UnlockAccountRequest(user_id=user), CONTEXT)
    assert not unlocked.HasField("locked_until_time")
    assert await refused(refresh(opened.refresh_token, Caller(HERE))) == "CREDENTIAL_REVOKED", "ended for good"
    assert (await rig.log_in(ALICE)).session.user_id == alice.user_id


async def test_a_lock_without_duration_stays_and_one_with_it_passes(
    rig: Rig, service: AuthAdminService, alice: User
) -> None:
    user = str(alice.user_id)
    lasting = await service.LockAccount(pb.LockAccountRequest(user_id=user, reason="for good"), CONTEXT)
    assert lasting.locked_until_time.ToDatetime(UTC).year == 9999
    assert lasting.locked_until_unlocked
    rig.let_pass(10 * 365 * 86_400)
    assert await refused(rig.log_in(ALICE)) == "ACCOUNT_LOCKED"
    hour = pb.LockAccountRequest(user_id=user, reason="an hour", duration=HOUR)
    assert not (await service.LockAccount(hour, CONTEXT)).locked_until_unlocked
    rig.let_pass(3_601)
    assert not (await service.GetUserByAdmin(pb.GetUserByAdminRequest(user_id=user), CONTEXT)).HasField(
        "locked_until_time"
    )
    assert (await service.ListLockedAccounts(pb.ListLockedAccountsRequest(), CONTEXT)).accounts == []
    await rig.log_in(ALICE)


async def test_locked_accounts_are_listed_with_why_until_when_and_how_many_attempts(
    rig: Rig, service: AuthAdminService, alice: User
) -> None:
    for number in range(ThrottlePolicy().name_limit):
        await refused(rig.log_in(ALICE, "wrong password"))
        if number < ThrottlePolicy().name_limit - 1:
            rig.let_pass(ThrottlePolicy().name_wait_s(number + 1))
    bob = await rig.add_user("bob@example.com")
    await service.LockAccount(pb.LockAccountRequest(user_id=str(bob.user_id), reason="asked for it"), CONTEXT)
    await rig.add_user("carol@example.com")
    first, second = (await service.ListLockedAccounts(pb.ListLockedAccountsRequest(), CONTEXT)).accounts
    assert (first.user_id, first.email, first.reason) == (str(bob.user_id), "bob@example.com", "asked for it")
    assert not first.HasField("locked_until_time")
    assert (second.user_id, second.reason, second.failed_attempts) == (str(alice.user_id), "failed attempts", 10)
    assert second.locked_until_time.seconds - second.locked_time.seconds == 900


async def test_every_list_comes_in_pages_that_miss_and_double_nothing(rig: Rig, service: AuthAdminService) -> None:
    users = [await rig.add_user(f"user-{number}@example.com") for number in range(5)]
    ids = [str(user.user_id) for user in users]
    for index, user in enumerate(users):
        await service.LockAccount(pb.LockAccountRequest(user_id=str(user.user_id), reason="a test"), CONTEXT)
        await service.UnlockAccount(pb.UnlockAccountRequest(user_id=str(user.user_id)), CONTEXT)
        for number in range(4 + index % 2):
            await rig.log_in(user.email, address=f"203.0.113.{number}")
        await refused(rig.log_in(user.email, "wrong password"))
        await service.LockAccount(pb.LockAccountRequest(user_id=str(user.user_id), reason="a test"), CONTEXT)

    async def pages(method: Any, request: Any, field: str) -> list[str]:
        found: list[str] = []
        while True:
            request.page_size = 2
            answer = await method(request, CONTEXT)
            rows = getattr(answer, field)
            assert len(rows) == 2 or not answer.next_page_token
            found += [row.user_id for row in rows]
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    assert await pages(service.ListUsers, pb.ListUsersRequest(), "users") == ids
    assert await pages(service.ListLockedAccounts, pb.ListLockedAccountsRequest(), "accounts") == ids[::-1]
    assert await pages(service.ListFailedAttempts, pb.ListFailedAttemptsRequest(), "attempts") == ids[::-1]
    many = await pages(service.ListManyAddressUsers, pb.ListManyAddressUsersRequest(), "users")
    assert many == [ids[1], ids[3], ids[0], ids[2], ids[4]], "most addresses first, then by id"


async def test_a_page_token_of_another_list_or_filter_is_refused(rig: Rig, service: AuthAdminService) -> None:
    users = [await rig.add_user(f"user-{number}@example.com") for number in range(2)]
    for user in users:
        await refused(rig.log_in(user.email, "wrong password"))
    token = (await service.ListFailedAttempts(pb.ListFailedAttemptsRequest(page_size=1), CONTEXT)).next_page_token
    assert token
    for request in (
        pb.ListFailedAttemptsRequest(page_token=token, window=duration_pb2.Duration(seconds=60)),
        pb.ListFailedAttemptsRequest(page_token=token, user_id=str(users[0].user_id)),
        pb.ListFailedAttemptsRequest(page_token="nonsense"),
    ):
        assert await refused(service.ListFailedAttempts(request, CONTEXT)) == "INVALID_PAGE_TOKEN page_token"
    many = pb.ListManyAddressUsersRequest(page_token=token)
    assert await refused(service.ListManyAddressUsers(many, CONTEXT)) == "INVALID_PAGE_TOKEN page_token"


async def test_failed_attempts_are_shown_for_a_window_and_a_user(
    rig: Rig, service: AuthAdminService, alice: User
) -> None:
    await refused(rig.log_in(ALICE, "wrong password", address="203.0.113.1"))
    rig.let_pass(3_601)
    await refused(rig.log_in("nobody@example.com", "wrong password", address="2001:db8::1"))
    await refused(rig.log_in(ALICE, "wrong password", address="203.0.113.2"))
    newest = (await service.ListFailedAttempts(pb.ListFailedAttemptsRequest(), CONTEXT)).attempts
    assert [(one.user_id, one.ip_address, one.reason) for one in newest] == [
        (str(alice.user_id), "203.0.113.2", "wrong password"),
        ("", "2001:db8::1", "unknown user"),
    ]
    day = duration_pb2.Duration(seconds=86_400)
    hers = pb.ListFailedAttemptsRequest(window=day, user_id=str(alice.user_id))
    assert [one.ip_address for one in (await service.ListFailedAttempts(hers, CONTEXT)).attempts] == [
        "203.0.113.2",
        "203.0.113.1",
    ]


async def test_users_with_many_addresses_are_those_with_more_than_asked_for(
    rig: Rig, service: AuthAdminService, alice: User
) -> None:
    for number in (1, 1, 2, 3):
        await rig.log_in(ALICE, address=f"203.0.113.{number}")
    many = service.ListManyAddressUsers
    assert (await many(pb.ListManyAddressUsersRequest(), CONTEXT)).users == [], "three are not more than three"
    (found,) = (await many(pb.ListManyAddressUsersRequest(more_than=2), CONTEXT)).users
    assert (found.user_id, found.address_count) == (str(alice.user_id), 3)
    assert sorted(found.ip_addresses) == ["203.0.113.1", "203.0.113.2", "203.0.113.3"]
    minute = pb.ListManyAddressUsersRequest(more_than=1, window=duration_pb2.Duration(seconds=60))
    with psycopg.connect(rig.database.admin_url, autocommit=True) as connection:
        connection.execute("UPDATE user_sessions SET created_at = created_at - interval '2 minutes'")
    assert (await many(minute, CONTEXT)).users == []


async def test_a_forced_log_out_ends_sessions_and_where_asked_for_keys(
    rig: Rig, service: AuthAdminService, alice: User
) -> None:
    first, second = await rig.log_in(ALICE), await rig.log_in(ALICE)
    key, _ = await rig.keys.create(alice.user_id, KEY, granted=frozenset({"read", "manage"}), now=datetime.now(UTC))
    out = await service.LogOutUser(pb.LogOutUserRequest(user_id=str(alice.user_id), reason="suspicious"), CONTEXT)
    assert (out.ended_sessions, out.revoked_api_keys) == (2, 0)
    assert (await rig.keys.get(key.api_key)).revoked_at is None
    subjects = {subject for kind, subject, *_ in query(rig, REVOKED) if kind == "session"}
    assert subjects == {first.session.session_id, second.session.session_id}
    again = pb.LogOutUserRequest(user_id=str(alice.user_id), revoke_api_keys=True)
    out = await service.LogOutUser(again, CONTEXT)
    assert (out.ended_sessions, out.revoked_api_keys) == (0, 1)
    assert query(rig, REVOKED)[-1][:2] == ("api_key", key.api_key)


async def test_new_roles_void_the_tokens_and_the_same_roles_do_not(
    rig: Rig, service: AuthAdminService, alice: User
) -> None:
    user = str(alice.user_id)
    act_as("admin")
    request = pb.SetUserRolesRequest(
        user_id=user, roles=[access_pb2.SUPPORT, access_pb2.TRADER, access_pb2.SUPPORT], reason="hired"
    )
    shown = await service.SetUserRoles(request, CONTEXT)
    assert list(shown.roles) == [access_pb2.TRADER, access_pb2.SUPPORT]
    assert (await rig.user(ALICE)).roles == ("trader", "support")
    await service.SetUserRoles(request, CONTEXT)
    assert query(rig, REVOKED) == [("user", user, 2, user, [], False, "hired")]


async def test_a_tier_is_one_of_four_and_counts_from_the_next_token(
    rig: Rig, service: AuthAdminService, alice: User
) -> None:
    user = str(alice.user_id)
    wrong = pb.SetUserTierRequest(user_id=user, tier="gold", reason="asked")
    assert await refused(service.SetUserTier(wrong, CONTEXT)) == "INVALID_FIELD tier"
    right = pb.SetUserTierRequest(user_id=user, tier="institution", reason="contract 7")
    assert (await service.SetUserTier(right, CONTEXT)).tier == "institution"
    await service.SetUserTier(right, CONTEXT)
    assert query(rig, REVOKED) == [("user", user, 2, user, [], False, "contract 7")]


STANDING = [{"trader", "market_maker"}, {"support", "auditor"}, {"operator"}, {"admin"}]
"""Roles, the least rights first."""


@pytest.mark.parametrize("above", [False, True])
async def test_nobody_changes_anything_of_a_user_who_has_more_rights(
    rig: Rig, service: AuthAdminService, alice: User, *, above: bool
) -> None:
    key, _ = await rig.keys.create(alice.user_id, KEY, granted=frozenset({"read", "manage"}), now=datetime.now(UTC))
    user = str(alice.user_id)
    subject = "spiffe://pincex/client/alice"
    allow = pb.AllowCertificateRequest(subject_uri=subject, account=user, scopes=[access_pb2.Access.READ])
    await rig.parts.certificates.allow(subject, user, ("read",), by=Standing.ADMIN)
    calls: list[tuple[Any, Any]] = [
        (service.LockAccount, pb.LockAccountRequest(user_id=user, reason="a test")),
        (service.UnlockAccount, pb.UnlockAccountRequest(user_id=user)),
        (service.LogOutUser, pb.LogOutUserRequest(user_id=user, revoke_api_keys=True)),
        (service.SetUserTier, pb.SetUserTierRequest(user_id=user, tier="institution", reason="a test")),
        (service.RevokeAnyApiKey, pb.RevokeAnyApiKeyRequest(api_key=key.api_key)),
        (service.AllowCertificate, allow),
        (service.RemoveCertificate, pb.RemoveCertificateRequest(subject_uri=subject)),
    ]
    for rank, roles in enumerate(STANDING):
        for role in roles:
            query_roles = sorted({"trader", role})
            with psycopg.connect(rig.database.admin_url, autocommit=True) as connection:
                connection.execute("UPDATE users SET roles = %s WHERE user_id = %s", (query_roles, alice.user_id))
            if above:
                # Whoever stands as high may, and so may a service of the exchange.
                for actor in sorted(set[str]().union(*STANDING[rank:])):
                    act_as(actor)
                    await service.UnlockAccount(pb.UnlockAccountRequest(user_id=user), CONTEXT)
                act_as("operator", source="service")
                await service.UnlockAccount(pb.UnlockAccountRequest(user_id=user), CONTEXT)
                continue
            for actor in sorted(set[str]().union(*STANDING[:rank])):
                act_as(actor)
                for method, request in calls:
                    assert await refused(method(request, CONTEXT)) == "PERMISSION_DENIED", (actor, role, method)
    if not above:
        assert query(rig, REVOKED) == []
        assert (await rig.user(ALICE)).locked_at is None
        assert (await rig.user(ALICE)).tier == alice.tier


def act_as(*roles: str, source: str = "token") -> None:
    """Whoever calls from now on has these roles."""
    principal = Principal("1", frozenset(roles), source)
    set_request_context(RequestContext(request_id="", principal=principal, deadline=None, method="", peer=""))


async def test_the_last_administrator_stays_one_however_many_ask_at_once(rig: Rig, database: Database) -> None:
    act_as("admin")
    admins = [await rig.add_user(f"admin-{number}@example.com", roles=("admin",)) for number in range(3)]
    async with running_rig(database) as other:
        done = await asyncio.gather(
            *(
                service_of(instance).SetUserRoles(
                    pb.SetUserRolesRequest(user_id=str(admin.user_id), roles=[access_pb2.TRADER], reason="coup"),
                    CONTEXT,
                )
                for admin, instance in zip(admins, (rig, other, rig), strict=True)
            ),
            return_exceptions=True,
        )
    refusals = [one for one in done if isinstance(one, ServiceError)]
    assert [(one.reason_name, one.message) for one in refusals] == [
        ("INVALID_FIELD", "the last ADMIN cannot be taken away")
    ]
    assert query(rig, "SELECT count(*) FROM users WHERE 'admin' = ANY(roles)") == [(1,)]


async def test_users_are_found_by_address_and_shown_with_what_they_have(
    rig: Rig, service: AuthAdminService, alice: User
) -> None:
    await rig.parts.sub_accounts.create(alice.user_id, "bots")
    (found,) = (await service.ListUsers(pb.ListUsersRequest(email=" Alice@Example.com "), CONTEXT)).users
    assert (found.user_id, found.email, found.email_verified) == (str(alice.user_id), ALICE, True)
    assert list(found.accounts) == [str(alice.user_id), f"{alice.user_id}.bots"]
    assert (await service.ListUsers(pb.ListUsersRequest(email="bob@example.com"), CONTEXT)).users == []
    assert PASSWORD not in str(found)


@pytest.mark.parametrize(
    "user_id", ["", "12345", "alice", "-1", "1e5", "0100001", "9" * 30, "100001; DROP TABLE users"]
)
async def test_what_is_nobodys_id_is_not_found(service: AuthAdminService, user_id: str) -> None:
    calls: tuple[tuple[Any, Any], ...] = (
        (service.UnlockAccount, pb.UnlockAccountRequest()),
        (service.LockAccount, pb.LockAccountRequest(reason="x")),
        (service.LogOutUser, pb.LogOutUserRequest()),
        (service.GetUserByAdmin, pb.GetUserByAdminRequest()),
        (service.SetUserRoles, pb.SetUserRolesRequest(reason="x", roles=[access_pb2.TRADER])),
        (service.SetUserTier, pb.SetUserTierRequest(reason="x", tier="standard")),
    )
    for method, request in calls:
        request.user_id = user_id
        assert await refused(method(request, CONTEXT)) == "USER_NOT_FOUND"


async def test_fields_that_are_missing_or_wrong_are_named(service: AuthAdminService, alice: User) -> None:
    user = str(alice.user_id)
    days = duration_pb2.Duration(seconds=40 * 86_400)
    calls: tuple[tuple[Any, Any, str], ...] = (
        (service.LockAccount, pb.LockAccountRequest(user_id=user, reason="  "), "FIELD_REQUIRED reason"),
        (service.LockAccount, pb.LockAccountRequest(user_id=user, reason="x" * 257), "INVALID_FIELD reason"),
        (service.UnlockAccount, pb.UnlockAccountRequest(user_id=user, reason="x" * 257), "INVALID_FIELD reason"),
        (
            service.LockAccount,
            pb.LockAccountRequest(user_id=user, reason="x", duration=duration_pb2.Duration()),
            "INVALID_FIELD duration",
        ),
        (
            service.LockAccount,
            pb.LockAccountRequest(user_id=user, reason="x", duration=duration_pb2.Duration(seconds=10**12)),
            "INVALID_FIELD duration",
        ),
        (service.SetUserRoles, pb.SetUserRolesRequest(user_id=user, reason="x"), "FIELD_REQUIRED roles"),
        (
            service.SetUserRoles,
            pb.SetUserRolesRequest(user_id=user, roles=[NO_ROLE], reason="x"),
            "UNKNOWN_ENUM_VALUE roles",
        ),
        (
            service.SetUserRoles,
            pb.SetUserRolesRequest(user_id=user, roles=[NEW_ROLE], reason="x"),
            "UNKNOWN_ENUM_VALUE roles",
        ),
        (
            service.SetUserRoles,
            pb.SetUserRolesRequest(user_id=user, roles=[access_pb2.TRADER]),
            "FIELD_REQUIRED reason",
        ),
        (service.ListFailedAttempts, pb.ListFailedAttemptsRequest(window=days), "INVALID_FIELD window"),
        (service.ListFailedAttempts, pb.ListFailedAttemptsRequest(page_size=501), "INVALID_FIELD page_size"),
        (service.ListManyAddressUsers, pb.ListManyAddressUsersRequest(window=days), "INVALID_FIELD window"),
        (service.ListUsers, pb.ListUsersRequest(email="no address"), "INVALID_FIELD email"),
    )
    for method, request, reason in calls:
        assert await refused(method(request, CONTEXT)) == reason, request


async def test_a_signing_key_is_made_on_request(rig: Rig, service: AuthAdminService) -> None:
    before = {key_id for (key_id,) in query(rig, "SELECT key_id FROM auth_signing_keys")}
    made = await service.RotateSigningKey(pb.RotateSigningKeyRequest(reason="drill"), CONTEXT)
    assert {key_id for (key_id,) in query(rig, "SELECT key_id FROM auth_signing_keys")} == {*before, made.key_id}


def test_times_survive_a_page_token_to_the_microsecond() -> None:
    instant = datetime(2026, 11, 25, 12, 0, 0, 123_457, UTC) + timedelta(microseconds=1)
    assert positions.instant_of(positions.microseconds(instant)) == instant
    assert positions.unpack(positions.pack(1, 2), 2) == [1, 2]
    for wrong in ("1", "1.2.3", "1.-2", "1." + "9" * 19):
        with pytest.raises(ServiceError):
            positions.unpack(wrong, 2)
    with pytest.raises(ServiceError):
        positions.instant_of(10**18 - 1)

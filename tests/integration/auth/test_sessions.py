"""What users do with their sessions, passwords and sub-accounts, and who cannot."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pincex.auth.v1 import auth_service_pb2
from pincex.auth.v1 import user_service_pb2 as pb
from pincex.common.v1 import access_pb2
from tests.integration.auth.auth_app import PASSWORD, THERE, Service, bearer, refused, running_auth
from tests.postgres_fixture import PostgresServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
NEW_PASSWORD = "another battery, no horse"


async def listed(service: Service, tokens: Any, **page: Any) -> Any:
    return await service.user.ListSessions(pb.ListSessionsRequest(**page), metadata=bearer(tokens))


async def until_out(service: Service, tokens: Any) -> None:
    await service.until_revoked(lambda: service.user.GetUser(pb.GetUserRequest(), metadata=bearer(tokens)))


async def test_a_user_sees_itself(service: Service) -> None:
    address = await service.register()
    tokens = await service.log_in(address)
    user = await service.user.GetUser(pb.GetUserRequest(), metadata=bearer(tokens))
    assert (user.user_id, user.email, user.email_verified) == (tokens.user_id, address, True)
    assert (user.second_factor, user.tier, list(user.roles)) == (False, "standard", [access_pb2.TRADER])
    assert list(user.accounts) == [tokens.user_id]


async def test_sessions_are_listed_the_newest_first_page_by_page(service: Service) -> None:
    address = await service.register()
    opened = [await service.log_in(address) for _ in range(4)]
    opened.append(await service.log_in(address, come_from=THERE))
    first = await listed(service, opened[-1], page_size=3)
    second = await listed(service, opened[-1], page_size=3, page_token=first.next_page_token)
    sessions = [*first.sessions, *second.sessions]
    assert [session.session_id for session in sessions] == [tokens.session_id for tokens in reversed(opened)]
    assert [session.current for session in sessions] == [True, False, False, False, False]
    assert sessions[0].ip_address == THERE
    assert "grpc" in sessions[0].user_agent
    assert not second.next_page_token
    assert (await refused(listed(service, opened[-1], page_token="nonsense"))).reason == "INVALID_PAGE_TOKEN"
    stranger = await service.new_session()
    refusal = await refused(listed(service, stranger, page_token=first.next_page_token))
    assert refusal.reason == "INVALID_PAGE_TOKEN"


async def test_an_ended_session_is_out_at_once_here_and_soon_everywhere_and_the_others_stay(service: Service) -> None:
    address = await service.register()
    first, second = await service.log_in(address), await service.log_in(address)
    for _ in range(2):
        await service.user.EndSession(pb.EndSessionRequest(session_id=first.session_id), metadata=bearer(second))
    assert (await refused(service.refresh(first.refresh_token))).reason == "CREDENTIAL_REVOKED"
    await until_out(service, first)
    assert [session.session_id for session in (await listed(service, second)).sessions] == [second.session_id]
    revoked = service.rows("SELECT count(*) FROM auth_revocations WHERE subject = %s", first.session_id)
    assert revoked == [(1,)]


async def test_nobody_ends_the_session_of_another(service: Service) -> None:
    mine, foreign = await service.new_session(), await service.new_session()
    for session_id in (foreign.session_id, "ses_nothing", ""):
        refusal = await refused(
            service.user.EndSession(pb.EndSessionRequest(session_id=session_id), metadata=bearer(mine))
        )
        assert refusal.reason == "LOGIN_SESSION_NOT_FOUND"
    assert (await service.refresh(foreign.refresh_token)).access_token


async def test_logging_out_ends_the_session_that_asks(service: Service) -> None:
    tokens = await service.new_session()
    await service.auth.Logout(auth_service_pb2.LogoutRequest(), metadata=bearer(tokens))
    assert (await refused(service.refresh(tokens.refresh_token))).reason == "CREDENTIAL_REVOKED"
    await until_out(service, tokens)


async def test_all_sessions_end_the_one_that_asks_too(service: Service) -> None:
    address = await service.register()
    opened = [await service.log_in(address) for _ in range(3)]
    stranger = await service.new_session()
    answer = await service.user.EndAllSessions(pb.EndAllSessionsRequest(), metadata=bearer(opened[0]))
    assert answer.ended_count == 3
    for tokens in opened:
        assert (await refused(service.refresh(tokens.refresh_token))).reason == "CREDENTIAL_REVOKED"
        await until_out(service, tokens)
    assert (await service.refresh(stranger.refresh_token)).access_token
    assert (await service.log_in(address)).access_token


async def test_a_new_password_takes_the_old_one_and_ends_all_other_sessions(service: Service) -> None:
    address = await service.register()
    here, there = await service.log_in(address), await service.log_in(address)

    def change(password: str, new_password: str) -> Any:
        request = pb.ChangePasswordRequest(password=password, new_password=new_password)
        return service.user.ChangePassword(request, metadata=bearer(here))

    assert (await refused(change("wrong password", NEW_PASSWORD))).reason == "CREDENTIALS_REFUSED"
    assert (await refused(change(PASSWORD, "password1234"))).reason == "PASSWORD_TOO_WEAK"
    assert (await refused(change(PASSWORD, ""))).metadata == {"field": "new_password"}
    await change(PASSWORD, NEW_PASSWORD)
    assert (await refused(service.log_in(address))).reason == "CREDENTIALS_REFUSED"
    assert (await service.log_in(address, NEW_PASSWORD)).access_token
    assert (await refused(service.refresh(there.refresh_token))).reason == "CREDENTIAL_REVOKED"
    await until_out(service, there)
    assert (await service.refresh(here.refresh_token)).access_token


async def test_a_password_that_was_changed_meanwhile_is_not_changed_again(service: Service) -> None:
    address = await service.register()
    tokens = await service.log_in(address)
    request = pb.ChangePasswordRequest(password=PASSWORD, new_password=NEW_PASSWORD)
    outcomes = await asyncio.gather(
        *(service.user.ChangePassword(request, metadata=bearer(tokens)) for _ in range(2)), return_exceptions=True
    )
    assert sum(isinstance(outcome, pb.ChangePasswordResponse) for outcome in outcomes) == 1


async def test_wrong_passwords_given_with_a_token_count_as_failed_log_ins(service: Service) -> None:
    tokens = await service.new_session()
    request = pb.ChangePasswordRequest(password="wrong password", new_password=NEW_PASSWORD)
    reasons = [(await refused(service.user.ChangePassword(request, metadata=bearer(tokens)))).reason for _ in range(6)]
    assert reasons[0] == "CREDENTIALS_REFUSED"
    assert reasons[-1] == "TOO_MANY_ATTEMPTS"


async def test_a_locked_user_changes_no_password(service: Service) -> None:
    tokens = await service.new_session()
    service.rows("UPDATE users SET locked_at = now(), lock_scope = 'login' WHERE user_id = %s", int(tokens.user_id))
    request = pb.ChangePasswordRequest(password=PASSWORD, new_password=NEW_PASSWORD)
    refusal = await refused(service.user.ChangePassword(request, metadata=bearer(tokens)))
    assert refusal.reason == "ACCOUNT_LOCKED"


async def test_the_second_factor_goes_on_and_off_by_password_and_code(service: Service) -> None:
    address = await service.register()
    tokens = await service.log_in(address)
    me = bearer(tokens)
    wrong = pb.BeginSecondFactorRequest(password="wrong password")
    assert (await refused(service.user.BeginSecondFactor(wrong, metadata=me))).reason == "CREDENTIALS_REFUSED"
    begun = await service.user.BeginSecondFactor(pb.BeginSecondFactorRequest(password=PASSWORD), metadata=me)
    assert begun.uri.startswith("otpauth://totp/")
    code = await _code_of(begun.secret)
    codes = (await service.user.ConfirmSecondFactor(pb.ConfirmSecondFactorRequest(code=code), metadata=me)).codes
    assert (await service.user.GetUser(pb.GetUserRequest(), metadata=me)).recovery_codes_left == len(codes) == 10
    renewed = await service.user.RenewRecoveryCodes(pb.RenewRecoveryCodesRequest(password=PASSWORD), metadata=me)
    assert not set(renewed.codes) & set(codes)
    remove = pb.RemoveSecondFactorRequest(password=PASSWORD, code=codes[0])
    assert (await refused(service.user.RemoveSecondFactor(remove, metadata=me))).reason == "CODE_REFUSED"
    remove = pb.RemoveSecondFactorRequest(password=PASSWORD, code=renewed.codes[0])
    await service.user.RemoveSecondFactor(remove, metadata=me)
    assert not (await service.user.GetUser(pb.GetUserRequest(), metadata=me)).second_factor


async def _code_of(secret: str) -> str:
    import pyotp

    return pyotp.TOTP(secret).now()


async def test_sub_accounts_are_made_once_and_listed_by_name(service: Service) -> None:
    tokens = await service.new_session()
    me = bearer(tokens)
    names = ["beta", "alpha", "algo-7"]
    for name in (*names, "beta"):
        made = await service.user.CreateSubAccount(pb.CreateSubAccountRequest(name=name), metadata=me)
        assert (made.account, made.name) == (f"{tokens.user_id}.{name}", name)
    first = await service.user.ListSubAccounts(pb.ListSubAccountsRequest(page_size=2), metadata=me)
    more = pb.ListSubAccountsRequest(page_size=2, page_token=first.next_page_token)
    second = await service.user.ListSubAccounts(more, metadata=me)
    assert [each.name for each in (*first.sub_accounts, *second.sub_accounts)] == sorted(names)
    assert not second.next_page_token
    user = await service.user.GetUser(pb.GetUserRequest(), metadata=me)
    assert list(user.accounts) == [tokens.user_id, *(f"{tokens.user_id}.{name}" for name in sorted(names))]
    for wrong in ("", "Alpha", "a.b", "a b", "x" * 33, "ä"):
        refusal = await refused(service.user.CreateSubAccount(pb.CreateSubAccountRequest(name=wrong), metadata=me))
        assert refusal.reason == "INVALID_FIELD"


async def test_sub_accounts_are_bounded_also_when_made_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.auth.sub_accounts.MAX_SUB_ACCOUNTS", 2)
    tokens = await service.new_session()
    calls = [
        service.user.CreateSubAccount(pb.CreateSubAccountRequest(name=f"n{number}"), metadata=bearer(tokens))
        for number in range(5)
    ]
    outcomes = await service.at_once("SELECT FROM users WHERE user_id = %s FOR UPDATE", int(tokens.user_id), calls)
    assert sum(isinstance(outcome, pb.SubAccount) for outcome in outcomes) == 2
    assert sum("QUOTA_EXCEEDED" in str(getattr(each, "trailing_metadata", str)()) for each in outcomes) == 3


async def test_a_narrow_token_manages_nothing(service: Service) -> None:
    address = await service.register()
    tokens = await service.log_in(address, scopes=[access_pb2.Access.READ, access_pb2.Access.TRADE])
    await listed(service, tokens)
    refusal = await refused(service.user.EndAllSessions(pb.EndAllSessionsRequest(), metadata=bearer(tokens)))
    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "SCOPE_MISSING")


async def test_without_a_token_nobody_is_a_user_in_any_profile(
    service: Service, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert (await refused(service.user.GetUser(pb.GetUserRequest()))).reason == "UNAUTHENTICATED"
    home = tmp_path_factory.mktemp("development")
    async with running_auth(service.database, home, PINCEX_PROFILE="development") as development:
        local = (("x-forwarded-for", "127.0.0.1"),)
        refusal = await refused(development.user.GetUser(pb.GetUserRequest(), metadata=local))
        assert (refusal.reason, refusal.message) == ("UNAUTHENTICATED", "this is for users: log in first")


async def test_the_exchange_of_a_key_is_for_keys(service: Service) -> None:
    tokens = await service.new_session()
    call = service.auth.ExchangeApiKey(auth_service_pb2.ExchangeApiKeyRequest(), metadata=bearer(tokens))
    assert (await refused(call)).reason == "PERMISSION_DENIED"


async def test_the_server_tells_its_time_and_its_window(service: Service) -> None:
    told = await service.auth.GetServerTime(auth_service_pb2.GetServerTimeRequest())
    assert told.unix_ms == told.server_time.seconds * 1_000 + told.server_time.nanos // 1_000_000
    assert told.window_ms == 5_000
    assert abs(told.unix_ms - service.app.clock.time_ns() // 1_000_000) < 5_000


async def test_sessions_that_ended_long_ago_are_removed_with_their_tokens(service: Service) -> None:
    gone, stays = await service.new_session(), await service.new_session()
    service.rows(
        "UPDATE user_sessions SET ended_at = now() - interval '91 days' WHERE session_id = %s", gone.session_id
    )
    assert await service.app.parts.sessions.purge() == 1
    counts = service.rows(
        "SELECT count(*) FROM refresh_tokens WHERE session_id IN (%s, %s)", gone.session_id, stays.session_id
    )
    assert counts == [(1,)]


async def test_a_sequence_injected_where_texts_go_stays_a_text(service: Service) -> None:
    me = bearer(await service.new_session())
    evil = "x'; UPDATE users SET roles = '{admin}'; --"
    end = pb.EndSessionRequest(session_id="ses_\0")
    assert (await refused(service.user.EndSession(end, metadata=me))).reason == "MALFORMED_REQUEST"
    for call in (
        service.user.EndSession(pb.EndSessionRequest(session_id=evil), metadata=me),
        service.user.CreateSubAccount(pb.CreateSubAccountRequest(name=evil), metadata=me),
        service.user.GetApiKey(pb.GetApiKeyRequest(api_key=evil), metadata=me),
        service.log_in("a@example.com", account=evil),
    ):
        await refused(call)
    assert service.rows("SELECT count(*) FROM users WHERE 'admin' = ANY (roles)") == [(1,)]

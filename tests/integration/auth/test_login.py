"""Logging in: one answer to whatever is wrong, the same work for it, and what the right password alone is told."""

from __future__ import annotations

import asyncio
from typing import Any

import argon2
import jwt
import pyotp
import pytest

from pincex.auth.v1 import auth_service_pb2 as pb
from pincex.auth.v1 import user_service_pb2
from pincex.common.v1 import access_pb2
from tests.integration.auth.auth_app import PASSWORD, Refusal, Service, bearer, eventually, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")
Scope = access_pb2.Access


def attempts(service: Service, address: str) -> list[tuple[str | None, str]]:
    return service.rows(
        "SELECT user_id::text, reason FROM failed_login_attempts WHERE ip_address = %s ORDER BY attempt_id", address
    )


async def fail(service: Service, address: str, come_from: str, password: str = "wrong password") -> Refusal:
    return await refused(service.log_in(address, password, come_from=come_from))


async def test_a_wrong_user_and_a_wrong_password_get_the_same_answer_for_the_same_argon2_work(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: list[str] = []
    real = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, against: str, given: str) -> bool:
        work.append(against.split("$")[3])
        return real(self, against, given)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    known, unknown = await service.register(), service.new_address()
    answers, costs = [], []
    for address in (known, unknown):
        before = service.sample("pincex_auth_argon2_total", work="verify")
        answers.append(await fail(service, address, "192.0.2.1"))
        costs.append(service.sample("pincex_auth_argon2_total", work="verify") - before)
    assert answers[0] == answers[1]
    assert (answers[0].code, answers[0].reason, answers[0].metadata) == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED", {})
    assert costs == [1, 1]
    assert work == ["m=64,t=1,p=1"] * 2


async def test_both_leave_the_same_kind_of_record_which_names_no_name(service: Service) -> None:
    known, unknown = await service.register(), service.new_address()
    for address in (known, unknown):
        await fail(service, address, "192.0.2.2")
    ((user_id,),) = service.rows("SELECT user_id::text FROM users WHERE email = %s", known)
    assert attempts(service, "192.0.2.2") == [(user_id, "wrong password"), (None, "unknown user")]
    assert not service.rows("SELECT 1 FROM failed_login_attempts a WHERE to_jsonb(a)::text LIKE %s", f"%{unknown}%")


async def test_after_too_many_failures_a_name_waits_whether_it_exists_or_not(service: Service) -> None:
    answers = [
        [(await fail(service, address, f"192.0.2.{number}")).reason for number in range(10, 16)]
        for address in (await service.register(), service.new_address())
    ]
    assert answers[0] == answers[1]
    assert answers[0][:4] == ["CREDENTIALS_REFUSED"] * 4
    assert answers[0][-1] == "TOO_MANY_ATTEMPTS"


async def test_a_throttled_name_costs_no_argon2_work_at_all(service: Service) -> None:
    address = await service.register()
    while (await fail(service, address, "192.0.2.20")).reason == "CREDENTIALS_REFUSED":
        pass
    before = service.sample("pincex_auth_argon2_total", work="verify")
    assert (await refused(service.log_in(address, come_from="192.0.2.21"))).reason == "TOO_MANY_ATTEMPTS"
    assert service.sample("pincex_auth_argon2_total", work="verify") == before


async def test_a_success_takes_its_attempt_back_and_forgives_those_before(service: Service) -> None:
    address = await service.register()
    for _ in range(2):
        await fail(service, address, "192.0.2.30")
    await service.log_in(address, come_from="192.0.2.30")
    assert service.rows("SELECT forgiven FROM failed_login_attempts WHERE ip_address = '192.0.2.30'") == [(True,)] * 2


@pytest.mark.parametrize(("scope", "come_from"), [("login", "192.0.2.41"), ("all", "192.0.2.42")])
async def test_only_the_right_password_learns_that_the_account_is_locked(
    service: Service, scope: str, come_from: str
) -> None:
    address = await service.register()
    service.rows(
        "UPDATE users SET locked_at = now(), lock_reason = 'a test', lock_scope = %s WHERE email = %s", scope, address
    )
    assert (await fail(service, address, "192.0.2.40")).reason == "CREDENTIALS_REFUSED"
    assert (await refused(service.log_in(address, come_from=come_from))).reason == "ACCOUNT_LOCKED"
    assert [reason for _, reason in attempts(service, come_from)] == ["locked"]
    service.rows("UPDATE users SET locked_until = now() - interval '1 s' WHERE email = %s", address)
    assert (await service.log_in(address)).access_token


async def test_the_token_says_who_what_and_until_when(service: Service) -> None:
    tokens = await service.new_session()
    claims = jwt.decode(tokens.access_token, options={"verify_signature": False})
    header = jwt.get_unverified_header(tokens.access_token)
    assert (header["alg"], header["typ"]) == ("ES256", "at+jwt")
    assert claims.keys() == {
        *("iss", "aud", "sub", "acc", "sid", "scp", "rol", "tier", "ops", "opn", "gen", "sxp", "iat", "exp", "jti")
    }
    assert (claims["iss"], claims["aud"]) == ("pincex", "pincex")
    assert (claims["sub"], claims["acc"], claims["sid"]) == (tokens.user_id, tokens.user_id, tokens.session_id)
    assert (claims["scp"], claims["rol"]) == (["read", "trade", "withdraw", "manage"], ["trader"])
    assert (claims["tier"], claims["ops"], claims["opn"], claims["gen"]) == ("standard", 0, 0, 1)
    assert claims["exp"] - claims["iat"] == 300
    assert claims["exp"] == tokens.access_expire_time.seconds
    assert claims["sxp"] == tokens.refresh_expire_time.seconds == pytest.approx(claims["iat"] + 30 * 86_400, abs=2)
    assert list(tokens.scopes) == [Scope.READ, Scope.TRADE, Scope.WITHDRAW, Scope.MANAGE]


async def test_scopes_narrow_and_never_widen(service: Service) -> None:
    address = await service.register()
    tokens = await service.log_in(address, scopes=[Scope.TRADE, Scope.READ, Scope.READ])
    assert list(tokens.scopes) == [Scope.READ, Scope.TRADE]
    again = await service.refresh(tokens.refresh_token)
    assert list(again.scopes) == [Scope.READ, Scope.TRADE]
    refusal = await refused(service.log_in(address, scopes=[Scope.READ, Scope.ADMIN]))
    assert (refusal.reason, refusal.metadata) == ("SCOPE_MISSING", {"scope": "admin"})
    assert (await refused(service.log_in(address, scopes=[99]))).reason == "UNKNOWN_ENUM_VALUE"
    service.rows("UPDATE users SET roles = '{trader,support}' WHERE email = %s", address)
    assert Scope.ADMIN in (await service.log_in(address)).scopes
    assert Scope.ADMIN not in (await service.refresh(again.refresh_token)).scopes


async def test_a_session_may_stand_for_a_sub_account_of_the_users_own(service: Service) -> None:
    address, stranger = await service.register(), await service.new_session()
    tokens = await service.log_in(address)
    made = await service.user.CreateSubAccount(
        user_service_pb2.CreateSubAccountRequest(name="algo-1"), metadata=bearer(tokens)
    )
    assert (await service.log_in(address, account=made.account)).account == f"{tokens.user_id}.algo-1"
    assert (await service.log_in(address, account=tokens.user_id)).account == tokens.user_id
    for account in (stranger.user_id, "nobody", f"{tokens.user_id}.algo-2"):
        assert (await refused(service.log_in(address, account=account))).reason == "SUB_ACCOUNT_NOT_FOUND"


async def test_a_hash_of_older_parameters_is_made_anew_at_the_next_log_in(service: Service) -> None:
    address = await service.register()
    older = argon2.PasswordHasher(time_cost=2, memory_cost=32, parallelism=1).hash(PASSWORD)
    service.rows("UPDATE users SET password_hash = %s WHERE email = %s", older, address)
    await service.log_in(address)
    ((now,),) = service.rows("SELECT password_hash FROM users WHERE email = %s", address)
    assert now.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert (await service.log_in(address)).access_token


async def with_second_factor(service: Service) -> tuple[str, str, list[str]]:
    """Address, secret and recovery codes of a new user."""
    address = await service.register()
    token = bearer(await service.log_in(address))
    begun = await service.user.BeginSecondFactor(
        user_service_pb2.BeginSecondFactorRequest(password=PASSWORD), metadata=token
    )
    code = pyotp.TOTP(begun.secret).now()
    confirmed = await service.user.ConfirmSecondFactor(
        user_service_pb2.ConfirmSecondFactorRequest(code=code), metadata=token
    )
    return address, begun.secret, list(confirmed.codes)


async def test_with_the_second_factor_on_the_password_alone_is_not_enough(service: Service) -> None:
    address, _, codes = await with_second_factor(service)
    assert (await refused(service.log_in(address, code=""))).reason == "SECOND_FACTOR_REQUIRED"
    for wrong in ("000000", codes[0][:-1], "x" * 65):
        assert (await refused(service.log_in(address, code=wrong))).reason == "CREDENTIALS_REFUSED"
    assert (await service.log_in(address, code=codes[0])).access_token
    assert (await refused(service.log_in(address, code=codes[0]))).reason == "CREDENTIALS_REFUSED"
    assert (await refused(service.log_in(address, "wrong password", code=codes[1]))).reason == "CREDENTIALS_REFUSED"


async def test_a_password_that_changes_while_a_log_in_runs_opens_nothing(service: Service) -> None:
    address = await service.register()
    parts = service.app.parts
    real = parts.passwords.verify

    async def verified_then_changed(stored: str | None, password: str) -> Any:
        verdict = await real(stored, password)
        service.rows("UPDATE users SET password_hash = 'another' WHERE email = %s", address)
        return verdict

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.passwords, "verify", verified_then_changed)
        assert (await refused(service.log_in(address))).reason == "CREDENTIALS_REFUSED"
    assert service.rows("SELECT 1 FROM user_sessions JOIN users USING (user_id) WHERE email = %s", address) == []


async def test_a_lock_that_comes_while_a_log_in_runs_opens_nothing(service: Service) -> None:
    address = await service.register()
    parts = service.app.parts
    real = parts.login._check_code

    async def checked_then_locked(*arguments: Any) -> None:
        await real(*arguments)
        service.rows("UPDATE users SET locked_at = now(), lock_scope = 'all' WHERE email = %s", address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts.login, "_check_code", checked_then_locked)
        assert (await refused(service.log_in(address))).reason == "ACCOUNT_LOCKED"


async def test_an_overloaded_service_counts_no_attempt(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    address = await service.register()
    monkeypatch.setattr(service.app.parts.passwords, "_running", 1_000)
    assert (await refused(service.log_in(address, come_from="192.0.2.50"))).reason == "OVERLOADED"
    assert attempts(service, "192.0.2.50") == []


async def test_beyond_fifty_sessions_the_oldest_one_ends(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.auth.sessions.MAX_SESSIONS", 3)
    address = await service.register()
    sessions = [await service.log_in(address) for _ in range(4)]
    assert (await refused(service.refresh(sessions[0].refresh_token))).reason == "CREDENTIAL_REVOKED"
    for tokens in sessions[1:]:
        await service.refresh(tokens.refresh_token)


async def test_no_password_code_or_token_is_in_any_log_record_or_metric(service: Service) -> None:
    address, secret, codes = await with_second_factor(service)
    tokens = await service.log_in(address, code=codes[0])
    await refused(service.log_in(address, "my secret password", code=codes[1]))
    await refused(service.auth.Login(pb.LoginRequest(email="typed-a-password-here@x", password=PASSWORD)))
    logs = service.home / "logs"
    await eventually((logs / "security.log").exists, "a line is written")
    told = "".join(file.read_text() for file in logs.iterdir())
    told += str(service.rows("SELECT * FROM audit_records")) + str(service.rows("SELECT * FROM failed_login_attempts"))
    for planted in (PASSWORD, secret, codes[0], codes[1], tokens.access_token, tokens.refresh_token):
        assert planted not in told
    assert "my secret password" not in told
    assert "typed-a-password-here" not in told
    assert "wrong password" in told


async def test_many_log_ins_at_once_all_get_a_session_of_their_own(service: Service) -> None:
    address = await service.register()
    opened = await asyncio.gather(*(service.log_in(address, come_from=f"192.0.2.{100 + n}") for n in range(3)))
    assert len({tokens.session_id for tokens in opened}) == 3

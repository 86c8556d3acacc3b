"""Registering, proving an address, a forgotten password: nobody learns who is known, and codes count once."""

from __future__ import annotations

import asyncio

import pytest

from pincex.auth.v1 import auth_service_pb2 as pb
from pincex.auth.v1 import user_service_pb2
from tests.integration.auth.auth_app import PASSWORD, Service, bearer, coming_from, eventually, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")
NEW_PASSWORD = "another battery, no horse"


def stored(service: Service, address: str) -> tuple[str, bool]:
    ((password_hash, verified),) = service.rows(
        "SELECT password_hash, email_verified FROM users WHERE email = %s", address
    )
    return password_hash, verified


async def test_registering_makes_a_trader_whose_address_is_not_proven_yet(service: Service) -> None:
    address = service.new_address()
    await service.auth.Register(pb.RegisterRequest(email=f"  {address.upper()} ", password=PASSWORD))
    assert service.rows("SELECT roles, tier, email_verified FROM users WHERE email = %s", address) == [
        (["trader"], "standard", False)
    ]
    assert (await refused(service.log_in(address))).reason == "EMAIL_NOT_VERIFIED"
    code = await service.code(address)
    await service.auth.VerifyEmail(pb.VerifyEmailRequest(email=address, code=code))
    assert (await service.log_in(address)).account.isdigit()


async def test_a_taken_address_gets_the_same_answer_the_same_work_and_its_owner_a_mail(service: Service) -> None:
    address = await service.register()
    before, hashed = stored(service, address), service.sample("pincex_auth_argon2_total", work="hash")
    answer = await service.auth.Register(pb.RegisterRequest(email=address, password=NEW_PASSWORD))
    assert answer == pb.RegisterResponse()
    assert service.sample("pincex_auth_argon2_total", work="hash") == hashed + 1
    assert stored(service, address) == before
    await eventually(lambda: len(service.mails(address)) == 2, "the owner is told")
    assert "Somebody registered" in service.mails(address)[1]


async def test_a_password_of_somebody_who_never_proved_the_address_is_not_changed_by_registering_again(
    service: Service,
) -> None:
    address = service.new_address()
    await service.auth.Register(pb.RegisterRequest(email=address, password=PASSWORD))
    before = stored(service, address)
    await service.auth.Register(pb.RegisterRequest(email=address, password=NEW_PASSWORD))
    assert stored(service, address) == before


async def test_registering_twice_at_once_makes_one_user(service: Service) -> None:
    address = service.new_address()
    request = pb.RegisterRequest(email=address, password=PASSWORD)
    await asyncio.gather(*(service.auth.Register(request) for _ in range(4)))
    assert service.rows("SELECT count(*) FROM users WHERE email = %s", address) == [(1,)]


@pytest.mark.parametrize(
    ("address", "password", "reason", "field"),
    [
        ("", PASSWORD, "FIELD_REQUIRED", "email"),
        ("nobody", PASSWORD, "INVALID_FIELD", "email"),
        ("a@b\r\nBcc: c@d", PASSWORD, "INVALID_FIELD", "email"),
        ("a@b, c@d", PASSWORD, "INVALID_FIELD", "email"),
        ("'; DROP TABLE users; --@example.com", PASSWORD, "INVALID_FIELD", "email"),
        ("x" * 245 + "@example.com", PASSWORD, "INVALID_FIELD", "email"),
        ("a@example.com", "", "FIELD_REQUIRED", "password"),
        ("a@example.com", "x" * 1_025, "INVALID_FIELD", "password"),
        ("a@example.com", "password1234", "PASSWORD_TOO_WEAK", "password"),
    ],
)
async def test_what_is_no_address_or_no_good_password_is_refused_before_any_work(
    service: Service, address: str, password: str, reason: str, field: str
) -> None:
    hashed = service.sample("pincex_auth_argon2_total", work="hash")
    refusal = await refused(service.auth.Register(pb.RegisterRequest(email=address, password=password)))
    assert (refusal.reason, refusal.metadata["field"]) == (reason, field)
    assert service.sample("pincex_auth_argon2_total", work="hash") == hashed


async def test_a_code_counts_once_and_a_wrong_one_never(service: Service) -> None:
    address = service.new_address()
    await service.auth.Register(pb.RegisterRequest(email=address, password=PASSWORD))
    code = await service.code(address)
    wrong = f"{(int(code) + 1) % 10**8:08d}"
    for given in (wrong, "x" * 65):
        refusal = await refused(service.auth.VerifyEmail(pb.VerifyEmailRequest(email=address, code=given)))
        assert refusal.reason == "CODE_REFUSED"
    assert (await refused(service.auth.VerifyEmail(pb.VerifyEmailRequest(email=address)))).reason == "FIELD_REQUIRED"
    assert not stored(service, address)[1]
    await service.auth.VerifyEmail(pb.VerifyEmailRequest(email=address, code=code))
    assert stored(service, address)[1]
    refusal = await refused(service.auth.VerifyEmail(pb.VerifyEmailRequest(email=address, code=code)))
    assert refusal.reason == "CODE_REFUSED"


async def test_a_code_for_an_address_that_nobody_has_is_refused_in_the_same_way(service: Service) -> None:
    known = service.new_address()
    await service.auth.Register(pb.RegisterRequest(email=known, password=PASSWORD))
    await service.code(known)
    first, second = [
        await refused(service.auth.VerifyEmail(pb.VerifyEmailRequest(email=address, code="00000000")))
        for address in (known, service.new_address())
    ]
    assert first == second


@pytest.mark.parametrize("call", ["ResendVerification", "RequestPasswordReset"])
async def test_who_asks_for_a_mail_does_not_learn_whether_anybody_gets_it(service: Service, call: str) -> None:
    request = getattr(pb, f"{call}Request")
    answers = {
        (await getattr(service.auth, call)(request(email=address))).SerializeToString()
        for address in (await service.register(), service.new_address())
    }
    assert answers == {b""}


async def test_another_code_comes_only_to_who_has_not_proven_the_address(service: Service) -> None:
    pending, verified = service.new_address(), await service.register()
    await service.auth.Register(pb.RegisterRequest(email=pending, password=PASSWORD))
    await service.code(pending)
    # A minute later.
    service.rows("UPDATE mail_codes SET created_at = created_at - interval '61 s'")
    for address in (pending, verified):
        await service.auth.ResendVerification(pb.ResendVerificationRequest(email=address))
    code = await service.code(pending, 2)
    await service.auth.VerifyEmail(pb.VerifyEmailRequest(email=pending, code=code))
    assert len(service.mails(verified)) == 1


async def test_a_new_password_by_mail_ends_all_sessions_and_the_old_password(service: Service) -> None:
    address = await service.register()
    tokens = await service.log_in(address)
    await service.auth.RequestPasswordReset(pb.RequestPasswordResetRequest(email=address))
    code = await service.code(address, 2)
    weak = pb.ResetPasswordRequest(email=address, code=code, new_password="password1234")
    assert (await refused(service.auth.ResetPassword(weak))).reason == "PASSWORD_TOO_WEAK"
    request = pb.ResetPasswordRequest(email=address, code=code, new_password=NEW_PASSWORD)
    await service.auth.ResetPassword(request)
    assert (await refused(service.auth.ResetPassword(request))).reason == "CODE_REFUSED"
    assert (await refused(service.refresh(tokens.refresh_token))).reason == "CREDENTIAL_REVOKED"
    await service.until_revoked(
        lambda: service.user.GetUser(user_service_pb2.GetUserRequest(), metadata=bearer(tokens))
    )
    assert (await refused(service.log_in(address))).reason == "CREDENTIALS_REFUSED"
    assert (await service.log_in(address, NEW_PASSWORD)).access_token


async def test_a_reset_that_is_refused_for_load_leaves_the_code_good_and_counts_no_attempt(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = await service.register()
    await service.auth.RequestPasswordReset(pb.RequestPasswordResetRequest(email=address))
    code = await service.code(address, 2)
    request = pb.ResetPasswordRequest(email=address, code=code, new_password=NEW_PASSWORD)
    with monkeypatch.context() as patch:
        patch.setattr(service.app.parts.passwords, "_running", 1_000)
        refusal = await refused(service.auth.ResetPassword(request, metadata=coming_from("192.0.2.79")))
    assert refusal.reason == "OVERLOADED"
    assert service.rows("SELECT 1 FROM failed_login_attempts WHERE ip_address = '192.0.2.79'") == []
    await service.auth.ResetPassword(request)


async def test_who_registered_with_a_foreign_address_loses_it_to_its_owner(service: Service) -> None:
    address = service.new_address()
    await service.auth.Register(pb.RegisterRequest(email=address, password="the squatter's password"))
    await service.code(address)
    await service.auth.RequestPasswordReset(pb.RequestPasswordResetRequest(email=address))
    await service.auth.ResetPassword(
        pb.ResetPasswordRequest(email=address, code=await service.code(address, 2), new_password=NEW_PASSWORD)
    )
    assert (await service.log_in(address, NEW_PASSWORD)).access_token
    assert (await refused(service.log_in(address, "the squatter's password"))).reason == "CREDENTIALS_REFUSED"


async def test_a_code_of_one_purpose_is_nothing_to_the_other(service: Service) -> None:
    address = service.new_address()
    await service.auth.Register(pb.RegisterRequest(email=address, password=PASSWORD))
    code = await service.code(address)
    reset = pb.ResetPasswordRequest(email=address, code=code, new_password=NEW_PASSWORD)
    assert (await refused(service.auth.ResetPassword(reset))).reason == "CODE_REFUSED"


async def test_a_flood_of_registrations_from_one_address_is_refused(service: Service) -> None:
    request = pb.RegisterRequest(email=await service.register(), password=PASSWORD)
    flood = [service.auth.Register(request, metadata=coming_from("192.0.2.77")) for _ in range(30)]
    answers = await asyncio.gather(*flood, return_exceptions=True)
    # One more is let in every three seconds.
    assert sum(isinstance(answer, pb.RegisterResponse) for answer in answers) in range(20, 24)
    await service.auth.Register(request, metadata=coming_from("192.0.2.78"))


async def test_codes_are_stored_as_hashes_alone(service: Service) -> None:
    address = service.new_address()
    await service.auth.Register(pb.RegisterRequest(email=address, password=PASSWORD))
    code = await service.code(address)
    ((stored_hash,),) = service.rows(
        "SELECT code_hash FROM mail_codes JOIN users USING (user_id) WHERE email = %s", address
    )
    assert code.encode() not in bytes(stored_hash)
    assert len(stored_hash) == 32

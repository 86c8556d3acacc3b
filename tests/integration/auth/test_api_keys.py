"""API keys and certificates as users and operators handle them, over gRPC, and the exchange of a key for a token."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import aiohttp
import jwt
import pyotp
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from exchange.auth import keys as keys_module
from exchange.runtime.config import Secret
from exchange.runtime.edge_proof import EDGE_PROOF_KEY, PROTOCOL_KEY, edge_proof
from pincex.auth.v1 import auth_admin_service_pb2 as admin_pb
from pincex.auth.v1 import auth_service_pb2, types_pb2
from pincex.auth.v1 import user_service_pb2 as user_pb
from pincex.common.v1 import access_pb2
from pincex_client.signing import Ed25519Signer, HmacSigner
from tests.integration.auth.auth_app import HERE, PASSWORD, Service, bearer, eventually, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

READ, TRADE, MANAGE, ADMIN = (
    access_pb2.Access.READ,
    access_pb2.Access.TRADE,
    access_pb2.Access.MANAGE,
    access_pb2.Access.ADMIN,
)
EXCHANGE = "/pincex.auth.v1.AuthService/ExchangeApiKey"
PROOF = edge_proof(Secret("what services of a test share"))
_numbers = count(1)


def wanted(**changes: Any) -> user_pb.CreateApiKeyRequest:
    """A request that nothing is wrong with, but for the changes."""
    fields = {"label": "bot", "scopes": [READ, TRADE], "request_id": f"make-{next(_numbers)}"}
    return user_pb.CreateApiKeyRequest(**{**fields, **changes})


async def create(service: Service, tokens: Any, **changes: Any) -> user_pb.CreateApiKeyResponse:
    made: user_pb.CreateApiKeyResponse = await service.user.CreateApiKey(wanted(**changes), metadata=bearer(tokens))
    return made


async def operator(service: Service, *roles: str) -> Any:
    """The tokens of somebody with these roles."""
    address = await service.register()
    service.rows("UPDATE users SET roles = %s WHERE email = %s", list(roles), address)
    return await service.log_in(address)


async def through_the_gate(service: Service, signer: HmacSigner | Ed25519Signer) -> str:
    """The token that Envoy puts into a signed call of ExchangeApiKey; "" where it is refused."""
    headers = {**dict(signer.grpc_headers(EXCHANGE, b"")), "x-forwarded-for": HERE}
    headers |= {PROTOCOL_KEY: "grpc", EDGE_PROOF_KEY: PROOF}
    url = f"http://127.0.0.1:{service.app.gate.port}{EXCHANGE}"
    async with aiohttp.ClientSession() as http, http.post(url, headers=headers) as answer:
        return answer.headers.get("authorization", "").removeprefix("Bearer ")


async def test_a_key_is_made_and_its_secret_is_shown_once(service: Service) -> None:
    tokens = await service.new_session()
    expire = Timestamp(seconds=int(time.time()) + 3_600)
    request = wanted(
        allowed_addresses=["192.0.2.1", "2001:db8::/32"],
        cancel_orders_on_revoke=True,
        max_orders_per_second=5,
        max_open_orders=6,
        expire_time=expire,
    )
    made = await service.user.CreateApiKey(request, metadata=bearer(tokens))
    key = made.key
    assert len(base64.b64decode(made.secret, validate=True)) == 32
    assert key.api_key.startswith("ak_")
    assert len(key.api_key) == 35
    assert list(key.allowed_addresses) == ["192.0.2.1", "2001:db8::/32"]
    assert (key.user_id, key.account, key.label) == (tokens.user_id, tokens.user_id, "bot")
    assert (key.algorithm, list(key.scopes)) == (types_pb2.HMAC_SHA256, [READ, TRADE])
    assert (key.cancel_orders_on_revoke, key.max_orders_per_second, key.max_open_orders) == (True, 5, 6)
    assert key.expire_time == expire
    assert not key.HasField("used_time")
    assert not key.HasField("revoked_time")
    # A repeat, even by hand much later, names it and shows no secret.
    again = await service.user.CreateApiKey(request, metadata=bearer(tokens))
    assert again == user_pb.CreateApiKeyResponse(key=key)
    shown = await service.user.GetApiKey(user_pb.GetApiKeyRequest(api_key=key.api_key), metadata=bearer(tokens))
    assert shown == key
    # At rest it is encrypted, and bound to its key.
    ((stored,),) = service.rows("SELECT secret FROM api_keys WHERE api_key = %s", key.api_key)
    assert base64.b64decode(made.secret) not in stored
    assert service.app.parts.keys.box.decrypt(stored, key.api_key) == base64.b64decode(made.secret)


async def test_the_same_request_id_with_another_body_is_refused(service: Service) -> None:
    tokens = await service.new_session()
    request = wanted()
    await service.user.CreateApiKey(request, metadata=bearer(tokens))
    changes: dict[str, Any] = {
        "label": "another",
        "scopes": [READ],
        "allowed_addresses": ["192.0.2.1"],
        "cancel_orders_on_revoke": True,
        "max_open_orders": 1,
        "expire_time": Timestamp(seconds=int(time.time()) + 3_600),
    }
    for field, value in changes.items():
        other = wanted(**{"request_id": request.request_id, field: value})
        found = await refused(service.user.CreateApiKey(other, metadata=bearer(tokens)))
        assert (found.code, found.reason) == ("ALREADY_EXISTS", "DUPLICATE_ID"), field
    # Ids are each user's own.
    await service.user.CreateApiKey(request, metadata=bearer(await service.new_session()))


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"label": ""}, "FIELD_REQUIRED", "label"),
        ({"label": "x" * 65}, "INVALID_FIELD", "label"),
        ({"label": "a\nb"}, "INVALID_FIELD", "label"),
        ({"request_id": ""}, "FIELD_REQUIRED", "request_id"),
        ({"request_id": "a b"}, "INVALID_FIELD", "request_id"),
        ({"request_id": "ü"}, "INVALID_FIELD", "request_id"),
        ({"scopes": []}, "FIELD_REQUIRED", "scopes"),
        ({"scopes": [MANAGE]}, "INVALID_FIELD", "scopes"),
        ({"scopes": [77]}, "UNKNOWN_ENUM_VALUE", "scopes"),
        ({"algorithm": 77}, "UNKNOWN_ENUM_VALUE", "algorithm"),
        ({"allowed_addresses": ["192.0.2.1/24"]}, "INVALID_FIELD", "allowed_addresses[0]"),
        ({"allowed_addresses": ["192.0.2.1", "desk"]}, "INVALID_FIELD", "allowed_addresses[1]"),
        ({"allowed_addresses": ["fe80::1%eth0"]}, "INVALID_FIELD", "allowed_addresses[0]"),
        ({"allowed_addresses": ["192.0.2.1"] * 33}, "INVALID_FIELD", "allowed_addresses"),
        ({"max_open_orders": 4_000_000_000}, "NUMBER_TOO_LARGE", "max_open_orders"),
        ({"max_orders_per_second": 4_000_000_000}, "NUMBER_TOO_LARGE", "max_orders_per_second"),
        ({"expire_time": Timestamp(seconds=1)}, "EXPIRE_TIME_PASSED", "expire_time"),
        ({"expire_time": Timestamp(seconds=1 << 60)}, "INVALID_FIELD", "expire_time"),
        ({"public_key": base64.b64encode(bytes(32)).decode()}, "FIELD_NOT_ALLOWED", "public_key"),
        ({"algorithm": types_pb2.ED25519}, "FIELD_REQUIRED", "public_key"),
        ({"algorithm": types_pb2.ED25519, "public_key": "AAAA"}, "INVALID_FIELD", "public_key"),
        ({"algorithm": types_pb2.ED25519, "public_key": "not base64"}, "INVALID_FIELD", "public_key"),
    ],
)
async def test_a_wrong_field_is_named(service: Service, changes: dict[str, Any], reason: str, field: str) -> None:
    found = await refused(service.user.CreateApiKey(wanted(**changes), metadata=bearer(await one_session(service))))
    assert (found.reason, found.metadata["field"]) == (reason, field)


_session: list[Any] = []


async def one_session(service: Service) -> Any:
    """The tokens of one user for tests that change nothing of it."""
    if not _session:
        _session.append(await service.new_session())
    return _session[0]


async def test_a_key_may_do_no_more_than_its_user_and_the_token_that_made_it(service: Service) -> None:
    address = await service.register()
    everything = await service.log_in(address)
    found = await refused(create(service, everything, scopes=[READ, ADMIN]))
    assert (found.reason, found.metadata["scope"]) == ("SCOPE_MISSING", "admin")
    narrow = await service.log_in(address, scopes=[READ, MANAGE])
    found = await refused(create(service, narrow, scopes=[READ, TRADE]))
    assert (found.reason, found.metadata["scope"]) == ("SCOPE_MISSING", "trade")
    assert (await create(service, narrow, scopes=[READ])).key.api_key
    staff = await operator(service, "operator")
    assert list((await create(service, staff, scopes=[ADMIN])).key.scopes) == [ADMIN]


async def test_a_key_makes_no_key(service: Service) -> None:
    made = await create(service, await service.new_session())
    token = await through_the_gate(service, HmacSigner(made.key.api_key, base64.b64decode(made.secret)))
    found = await refused(service.user.CreateApiKey(wanted(), metadata=bearer(token)))
    assert (found.reason, found.metadata["scope"]) == ("SCOPE_MISSING", "manage")


async def test_a_key_acts_on_the_users_own_accounts_only(service: Service) -> None:
    tokens, stranger = await service.new_session(), await service.new_session()
    request = user_pb.CreateSubAccountRequest(name="desk")
    account = (await service.user.CreateSubAccount(request, metadata=bearer(tokens))).account
    assert (await create(service, tokens, account=account)).key.account == account
    for other in (stranger.user_id, account):
        assert (await refused(create(service, stranger, account=f"{other}.x"))).reason == "SUB_ACCOUNT_NOT_FOUND"
    assert (await refused(create(service, stranger, account=account))).reason == "SUB_ACCOUNT_NOT_FOUND"
    assert (await refused(create(service, stranger, account=tokens.user_id))).reason == "SUB_ACCOUNT_NOT_FOUND"


async def test_the_second_factor_is_asked_for_where_it_is_on(service: Service) -> None:
    address = await service.register()
    tokens = await service.log_in(address)
    begin = user_pb.BeginSecondFactorRequest(password=PASSWORD)
    secret = (await service.user.BeginSecondFactor(begin, metadata=bearer(tokens))).secret
    now = int(time.time())
    first = pyotp.TOTP(secret).at(now - 30)
    await service.user.ConfirmSecondFactor(user_pb.ConfirmSecondFactorRequest(code=first), metadata=bearer(tokens))
    assert (await refused(create(service, tokens))).reason == "SECOND_FACTOR_REQUIRED"
    code = pyotp.TOTP(secret).at(now + 30)
    # A mistake in the request costs no code.
    assert (await refused(create(service, tokens, scopes=[ADMIN], code=code))).reason == "SCOPE_MISSING"
    request = wanted(code=code)
    made = await service.user.CreateApiKey(request, metadata=bearer(tokens))
    # The code is used up, and the repeat of a lost answer needs none.
    assert (await service.user.CreateApiKey(request, metadata=bearer(tokens))).key == made.key
    assert (await refused(create(service, tokens, code=code))).reason == "CREDENTIALS_REFUSED"


async def test_a_user_has_so_many_live_keys_and_no_more(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "MAX_LIVE_KEYS", 3)
    tokens = await service.new_session()
    made = [await create(service, tokens) for _ in range(3)]
    assert (await refused(create(service, tokens))).reason == "QUOTA_EXCEEDED"
    request = user_pb.RevokeApiKeyRequest(api_key=made[0].key.api_key)
    await service.user.RevokeApiKey(request, metadata=bearer(tokens))
    await create(service, tokens)
    # An expired one is not alive, whether or not somebody has written it down.
    service.rows("UPDATE api_keys SET expires_at = now() WHERE api_key = %s", made[1].key.api_key)
    await create(service, tokens)


async def test_keys_are_listed_page_by_page_the_newest_first(service: Service) -> None:
    tokens = await service.new_session()
    made = [(await create(service, tokens)).key.api_key for _ in range(5)]
    await service.user.RevokeApiKey(user_pb.RevokeApiKeyRequest(api_key=made[2]), metadata=bearer(tokens))
    seen: list[str] = []
    token = ""
    while True:
        request = user_pb.ListApiKeysRequest(page_size=2, page_token=token)
        page = await service.user.ListApiKeys(request, metadata=bearer(tokens))
        seen += [key.api_key for key in page.keys]
        token = page.next_page_token
        if not token:
            break
        assert len(page.keys) == 2
    assert seen == made[::-1]
    other = bearer(await service.new_session())
    assert not (await service.user.ListApiKeys(user_pb.ListApiKeysRequest(), metadata=other)).keys
    first = await service.user.ListApiKeys(user_pb.ListApiKeysRequest(page_size=2), metadata=bearer(tokens))
    foreign = user_pb.ListApiKeysRequest(page_token=first.next_page_token)
    assert (await refused(service.user.ListApiKeys(foreign, metadata=other))).reason == "INVALID_PAGE_TOKEN"


async def test_a_foreign_key_is_not_there(service: Service) -> None:
    made = await create(service, await service.new_session())
    stranger = bearer(await service.new_session())
    get = user_pb.GetApiKeyRequest(api_key=made.key.api_key)
    revoke = user_pb.RevokeApiKeyRequest(api_key=made.key.api_key)
    assert (await refused(service.user.GetApiKey(get, metadata=stranger))).reason == "API_KEY_NOT_FOUND"
    assert (await refused(service.user.RevokeApiKey(revoke, metadata=stranger))).reason == "API_KEY_NOT_FOUND"
    assert service.rows("SELECT revoked_at FROM api_keys WHERE api_key = %s", made.key.api_key) == [(None,)]


@pytest.mark.parametrize(("of_the_key", "of_the_call"), [(False, False), (True, False), (False, True)])
async def test_revoking_tells_whether_orders_are_cancelled(
    service: Service, *, of_the_key: bool, of_the_call: bool
) -> None:
    tokens = await service.new_session()
    made = await create(service, tokens, cancel_orders_on_revoke=of_the_key)
    request = user_pb.RevokeApiKeyRequest(api_key=made.key.api_key, reason="leaked", cancel_orders=of_the_call)
    revoked = await service.user.RevokeApiKey(request, metadata=bearer(tokens))
    assert revoked.revoked_reason == "leaked"
    assert abs(revoked.revoked_time.seconds - time.time()) < 60
    query = "SELECT kind, user_id, accounts, cancel_orders, reason FROM auth_revocations WHERE subject = %s"
    row = ("api_key", tokens.user_id, [tokens.user_id], of_the_key or of_the_call, "leaked")
    assert service.rows(query, made.key.api_key) == [row]
    # Again is no error, and changes nothing but that orders are cancelled where that is asked for.
    again = user_pb.RevokeApiKeyRequest(api_key=made.key.api_key, reason="other", cancel_orders=True)
    assert await service.user.RevokeApiKey(again, metadata=bearer(tokens)) == revoked
    assert [found[3] for found in service.rows(f"{query} ORDER BY sequence", made.key.api_key)] == [row[3], True]


async def test_support_finds_and_revokes_any_key(service: Service) -> None:
    tokens = await service.new_session()
    made = await create(service, tokens)
    support = bearer(await operator(service, "support"))
    get = admin_pb.GetAnyApiKeyRequest(api_key=made.key.api_key)
    assert await service.admin.GetAnyApiKey(get, metadata=support) == made.key
    revoke = admin_pb.RevokeAnyApiKeyRequest(api_key=made.key.api_key)
    assert (await refused(service.admin.RevokeAnyApiKey(revoke, metadata=bearer(tokens)))).reason == "PERMISSION_DENIED"
    revoked = await service.admin.RevokeAnyApiKey(revoke, metadata=support)
    assert revoked.revoked_reason == "revoked by an operator"
    unknown = admin_pb.RevokeAnyApiKeyRequest(api_key="ak_compromised_key_example")
    assert (await refused(service.admin.RevokeAnyApiKey(unknown, metadata=support))).reason == "API_KEY_NOT_FOUND"
    signer = HmacSigner(made.key.api_key, base64.b64decode(made.secret))
    assert await through_the_gate(service, signer) == ""


@pytest.mark.parametrize("algorithm", [types_pb2.HMAC_SHA256, types_pb2.ED25519])
async def test_a_key_is_exchanged_for_a_token_that_gives_no_other(service: Service, algorithm: int) -> None:
    tokens = await service.new_session()
    private = bytes(range(32))
    public = Ed25519Signer("", private).public_key if algorithm == types_pb2.ED25519 else ""
    made = await create(service, tokens, algorithm=algorithm, public_key=public, max_open_orders=3)
    assert made.key.public_key == public
    assert bool(made.secret) is (algorithm == types_pb2.HMAC_SHA256)
    api_key = made.key.api_key
    signer = HmacSigner(api_key, base64.b64decode(made.secret)) if made.secret else Ed25519Signer(api_key, private)
    asked = auth_service_pb2.ExchangeApiKeyRequest()
    signed = (*bearer(await through_the_gate(service, signer)), *signer.grpc_headers(EXCHANGE, b"")[-1:])
    given = await service.auth.ExchangeApiKey(asked, metadata=signed)
    claims = jwt.decode(given.access_token, options={"verify_signature": False})
    assert (claims["key"], claims["opn"], claims["exp"]) == (api_key, 3, given.access_expire_time.seconds)
    assert (given.session_id, given.user_id, given.account) == (api_key, tokens.user_id, tokens.user_id)
    assert (list(given.scopes), given.refresh_token) == ([READ, TRADE], "")
    user = await service.user.GetUser(user_pb.GetUserRequest(), metadata=bearer(given))
    assert user.user_id == tokens.user_id
    for other in (given, tokens):
        found = await refused(service.auth.ExchangeApiKey(asked, metadata=bearer(other)))
        assert found.reason == "PERMISSION_DENIED"
    # The token dies with its key.
    await service.user.RevokeApiKey(user_pb.RevokeApiKeyRequest(api_key=api_key), metadata=bearer(tokens))
    await service.until_revoked(lambda: service.user.GetUser(user_pb.GetUserRequest(), metadata=bearer(given)))


async def test_a_key_that_expires_is_revoked_by_the_service_itself(service: Service) -> None:
    tokens = await service.new_session()
    ahead = Timestamp()
    ahead.FromDatetime(datetime.now(UTC) + timedelta(seconds=1.5))
    made = await create(service, tokens, expire_time=ahead)
    query = "SELECT reason FROM auth_revocations WHERE subject = %s"
    await eventually(lambda: service.rows(query, made.key.api_key) == [("expired",)], "the key is revoked")


async def test_certificates_are_allowed_listed_and_removed(service: Service) -> None:
    tokens = await service.new_session()
    staff = bearer(await operator(service, "operator"))
    name = f"spiffe://pincex/client/desk-{tokens.user_id}"
    allow = admin_pb.AllowCertificateRequest(subject_uri=name, account=tokens.user_id, scopes=[READ, TRADE])
    allowed = await service.admin.AllowCertificate(allow, metadata=staff)
    assert (allowed.subject_uri, allowed.account, allowed.user_id) == (name, tokens.user_id, tokens.user_id)
    assert list(allowed.scopes) == [READ, TRADE]
    assert await service.admin.AllowCertificate(allow, metadata=staff) == allowed
    other = admin_pb.AllowCertificateRequest(subject_uri=name, account=tokens.user_id, scopes=[READ])
    assert (await refused(service.admin.AllowCertificate(other, metadata=staff))).reason == "ALREADY_EXISTS"
    second = admin_pb.AllowCertificateRequest(subject_uri=f"{name}-2", account=tokens.user_id, scopes=[READ])
    await service.admin.AllowCertificate(second, metadata=staff)
    seen: list[str] = []
    token = ""
    while True:
        request = admin_pb.ListCertificatesRequest(page_size=1, page_token=token)
        page = await service.admin.ListCertificates(request, metadata=staff)
        seen += [one.subject_uri for one in page.certificates]
        token = page.next_page_token
        if not token:
            break
    assert [one for one in seen if one.startswith(name)] == [name, f"{name}-2"]
    remove = admin_pb.RemoveCertificateRequest(subject_uri=name)
    await service.admin.RemoveCertificate(remove, metadata=staff)
    assert (await refused(service.admin.RemoveCertificate(remove, metadata=staff))).reason == "CERTIFICATE_NOT_FOUND"
    # All tokens of the user are void, and its session gets new ones.
    await service.until_revoked(lambda: service.user.GetUser(user_pb.GetUserRequest(), metadata=bearer(tokens)))
    fresh = await service.refresh(tokens.refresh_token)
    await service.user.GetUser(user_pb.GetUserRequest(), metadata=bearer(fresh))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"subject_uri": ""}, "INVALID_FIELD"),
        ({"subject_uri": "https://example.com"}, "INVALID_FIELD"),
        ({"subject_uri": "spiffe://pincex/client/a,URI=b"}, "INVALID_FIELD"),
        ({"subject_uri": "spiffe://pincex/service/auth"}, "INVALID_FIELD"),
        ({"account": "0"}, "USER_NOT_FOUND"),
        ({"account": "999999999"}, "USER_NOT_FOUND"),
        ({"account": "demo"}, "USER_NOT_FOUND"),
        ({"account": "100001.none"}, "SUB_ACCOUNT_NOT_FOUND"),
        ({"scopes": []}, "FIELD_REQUIRED"),
        ({"scopes": [MANAGE]}, "INVALID_FIELD"),
        ({"scopes": [ADMIN]}, "INVALID_FIELD"),
    ],
)
async def test_a_certificate_needs_a_name_an_account_and_scopes(
    service: Service, changes: dict[str, Any], reason: str
) -> None:
    fields = {
        "subject_uri": "spiffe://pincex/client/x",
        "account": (await one_session(service)).user_id,
        "scopes": [READ],
    }
    request = admin_pb.AllowCertificateRequest(**{**fields, **changes})
    staff = bearer(await one_operator(service))
    assert (await refused(service.admin.AllowCertificate(request, metadata=staff))).reason == reason


_operator: list[Any] = []


async def one_operator(service: Service) -> Any:
    """The tokens of one operator for tests that change nothing."""
    if not _operator:
        _operator.append(await operator(service, "operator"))
    return _operator[0]

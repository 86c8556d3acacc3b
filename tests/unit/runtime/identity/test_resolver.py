"""Which credential of a call counts; one that is given is checked, and never ignored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import pytest

from exchange.runtime.clock import ManualClock, SystemClock
from exchange.runtime.config import Secret
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.identity.keys import MIN_REFRESH_INTERVAL_S, SigningKeys
from exchange.runtime.identity.resolver import CheckedTokens, NoTokens, TokenResolver
from exchange.runtime.identity.revocations import Revocations
from exchange.runtime.identity.service_token import WINDOW_MS, ServiceTokens
from exchange.runtime.principal import DenyingResolver, DevelopmentResolver, Principal
from tests.identity_fixture import Issuer, SigningKey, bearer

HERE = "ipv4:127.0.0.1:50000"
KEY = SigningKey()
SECRET = Secret("what all services of this exchange share")


class PaperIssuer(Issuer):
    """Signs without a database."""

    def __init__(self) -> None:
        self.key = KEY


class Nothing:
    """Nothing was ever revoked."""

    async def first_sequence(self) -> int:
        return 0

    async def revocations(self, first: int) -> list[Any]:
        return []


class Published:
    """The keys as the table has them."""

    def __init__(self) -> None:
        self.jwks = {KEY.key_id: json.dumps(KEY.public_jwk)}
        self.reads = 0
        self.away = False

    async def load(self) -> dict[str, str]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            raise OSError("away")
        return dict(self.jwks)


ISSUER = PaperIssuer()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().time_ns())


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
async def tokens(clock: ManualClock, published: Published) -> CheckedTokens:
    keys = SigningKeys(published.load, clock)
    await keys.refresh()
    revocations = Revocations(Nothing(), clock)
    await revocations.poll()
    return CheckedTokens(keys, revocations, clock)


@pytest.fixture
def resolver(tokens: CheckedTokens, clock: ManualClock) -> TokenResolver:
    return TokenResolver(tokens, ServiceTokens(SECRET, clock), DevelopmentResolver(operator=True))


def resolved(resolver: TokenResolver, *metadata: tuple[str, str | bytes]) -> Principal:
    found = resolver.resolve(HERE, metadata)
    assert isinstance(found, Principal)
    return found


def refusal(resolver: TokenResolver, *metadata: tuple[str, str | bytes]) -> Any:
    with pytest.raises(ServiceError) as caught:
        resolver.resolve(HERE, metadata)
    return caught.value.reason


def test_a_token_counts_more_than_the_account_that_a_caller_names(resolver):
    found = resolved(resolver, ("x-pincex-account", "demo"), *bearer(ISSUER.token("100005")))
    assert (found.account, found.source) == ("100005", "token")


def test_without_a_credential_the_profile_decides(resolver, tokens):
    assert resolved(resolver).source == "ops-local"
    assert refusal(TokenResolver(tokens, None, DenyingResolver())) == ErrorReason.UNAUTHENTICATED


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic ZGVtbzpkZW1v",
        "Bearer  ",
        "Token abc",
        "bearer\tabc",
        b"Bearer abc",
        "Bearer a b",
    ],
)
def test_a_malformed_authorization_is_refused_and_never_anonymous(resolver, value):
    assert refusal(resolver, ("authorization", value)) == ErrorReason.TOKEN_REFUSED


def test_the_scheme_is_written_as_anybody_likes(resolver):
    assert resolved(resolver, ("authorization", f"bearer {ISSUER.token()}")).user == "100001"


def test_two_authorizations_are_refused_though_one_is_good(resolver):
    good = bearer(ISSUER.token())
    assert refusal(resolver, *good, *good) == ErrorReason.TOKEN_REFUSED


def test_a_signed_call_that_was_not_at_the_edge_is_nobody(resolver):
    assert refusal(resolver, ("x-api-key", "ak_1")) == ErrorReason.UNAUTHENTICATED


def test_without_a_database_every_token_is_refused_with_the_cause(clock):
    resolver = TokenResolver(NoTokens(), None, DevelopmentResolver())
    with pytest.raises(ServiceError, match="runs in memory") as caught:
        resolver.resolve(HERE, bearer(ISSUER.token()))
    assert caught.value.reason == ErrorReason.TOKEN_REFUSED
    assert resolved(resolver).account == "demo"


# --- keys that are not known yet ---


async def later(resolver: TokenResolver, token: str) -> Principal:
    found = resolver.resolve(HERE, bearer(token))
    assert isinstance(found, Awaitable), "it has to ask"
    return await found


async def test_a_new_key_is_asked_for_once_for_all_who_wait(resolver, published, clock):
    other = SigningKey()
    token = ISSUER.sign(ISSUER.claims(), other)
    published.jwks[other.key_id] = json.dumps(other.public_jwk)
    clock.advance(MIN_REFRESH_INTERVAL_S)
    found = await asyncio.gather(*(later(resolver, token) for _ in range(20)))
    assert {one.user for one in found} == {"100001"}
    assert published.reads == 2
    assert resolved(resolver, *bearer(token)) is found[-1]


async def test_the_first_key_of_all_is_known_at_once(clock):
    jwks: dict[str, str] = {}

    async def load() -> dict[str, str]:
        return dict(jwks)

    keys = SigningKeys(load, clock)
    await keys.refresh()
    jwks[KEY.key_id] = json.dumps(KEY.public_jwk)
    assert await keys.find(KEY.key_id) is not None


async def test_made_up_keys_cause_one_question_a_second(resolver, published, clock):
    clock.advance(MIN_REFRESH_INTERVAL_S)
    for _ in range(50):
        with pytest.raises(ServiceError) as caught:
            await later(resolver, ISSUER.sign(ISSUER.claims(), SigningKey()))
        assert caught.value.reason == ErrorReason.TOKEN_REFUSED
    assert published.reads == 2


async def test_a_new_key_that_cannot_be_asked_for_is_no_refusal_of_the_token(resolver, published, clock):
    clock.advance(MIN_REFRESH_INTERVAL_S)
    published.away = True
    with pytest.raises(ServiceError) as caught:
        await later(resolver, ISSUER.sign(ISSUER.claims(), SigningKey()))
    assert caught.value.reason == ErrorReason.AUTH_UNAVAILABLE
    assert resolved(resolver, *bearer(ISSUER.token())).user == "100001"


@pytest.mark.parametrize(
    "jwk",
    [
        "{}",
        "no JSON",
        '{"kty": "oct", "k": "c2VjcmV0"}',
        '{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}',
        json.dumps({**KEY.public_jwk, "crv": "P-521"}),
    ],
)
async def test_a_key_that_cannot_be_used_harms_no_other(published, clock, jwk):
    published.jwks["broken"] = jwk
    keys = SigningKeys(published.load, clock)
    await keys.refresh()
    assert keys.get("broken") is None
    assert keys.get(KEY.key_id) is not None


# --- other services ---


def test_a_service_is_an_operator_on_the_ops_port(resolver, clock):
    found = resolved(resolver, ("x-pincex-service", ServiceTokens(SECRET, clock).mint("auth-service")))
    assert (found.account, found.source, found.roles) == ("auth-service", "service", frozenset({"operator"}))


def test_a_service_is_known_for_half_a_minute(resolver, clock):
    value = ServiceTokens(SECRET, clock).mint("admin")
    clock.advance(WINDOW_MS / 1000)
    assert resolved(resolver, ("x-pincex-service", value)).source == "service"
    clock.advance(0.001)
    assert refusal(resolver, ("x-pincex-service", value)) == ErrorReason.TOKEN_REFUSED


def test_clients_cannot_pretend_to_be_a_service(resolver, tokens, clock):
    good = ServiceTokens(SECRET, clock).mint("admin")
    name, milliseconds, signature = good.split(".")
    other = ServiceTokens(Secret("some other secret"), clock).mint("admin")
    for value in (
        other,
        f"auth-service.{milliseconds}.{signature}",
        f"{name}.{int(milliseconds) + 1}.{signature}",
        f"{name}.{milliseconds}.",
        f"{name}.{milliseconds}.{signature}\n",
        "",
        good.encode(),
    ):
        assert refusal(resolver, ("x-pincex-service", value)) == ErrorReason.TOKEN_REFUSED
    assert refusal(resolver, ("x-pincex-service", good), ("x-pincex-service", good)) == ErrorReason.TOKEN_REFUSED
    assert refusal(resolver, ("x-pincex-service", good), *bearer(ISSUER.token())) == ErrorReason.TOKEN_REFUSED
    public = TokenResolver(tokens, None, DevelopmentResolver())
    assert refusal(public, ("x-pincex-service", good)) == ErrorReason.TOKEN_REFUSED


# --- what ends a call ---


def test_who_came_without_a_token_is_never_void(resolver, clock):
    anonymous = resolved(resolver)
    clock.advance(3_600)
    assert resolver.why_void(anonymous) is None


def test_a_stream_outlives_its_access_token_and_ends_with_its_session(resolver, tokens, clock):
    ends_at = clock.time_ns() // 1_000_000_000 + 4
    found = resolved(resolver, *bearer(ISSUER.token(expires_in_s=1, sxp=ends_at)))
    clock.advance(3)
    assert resolver.why_void(found) is None
    clock.advance(2)
    assert resolver.why_void(found) == ErrorReason.CREDENTIAL_REVOKED


def test_nobody_is_let_in_by_token_while_revocations_are_not_followed(resolver, clock):
    token = ISSUER.token()
    found = resolved(resolver, *bearer(token))
    clock.advance(10.5)
    assert refusal(resolver, *bearer(token)) == ErrorReason.AUTH_UNAVAILABLE
    assert resolver.why_void(found) == ErrorReason.AUTH_UNAVAILABLE

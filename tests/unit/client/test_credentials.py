"""Credentials that renew themselves, against a fake auth service that hands out short-lived tokens."""
# ruff: noqa: N802 - the contract names the methods

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from pincex.auth.v1 import auth_service_pb2_grpc, types_pb2, user_service_pb2_grpc
from pincex_client import ExchangeClient, RetryPolicy
from pincex_client.credentials import ApiKey, Fixed, LogIn, TokenSet, token_set
from pincex_client.errors import ExchangeError, Unauthenticated
from pincex_client.signing import HmacSigner
from tests.unit.client.fake_server import CODES, refuse

QUICK = RetryPolicy(deadline=3.0, attempt_timeout=1.0, first_delay=0.005, max_delay=0.05)
SECRET = bytes(range(32))
API_KEY = "ak_" + "A" * 32

CODES.update(
    dict.fromkeys(
        ("TOKEN_EXPIRED", "CREDENTIAL_REVOKED", "TOKEN_REFUSED", "TIMESTAMP_OUT_OF_WINDOW"),
        grpc.StatusCode.UNAUTHENTICATED,
    )
)
CODES["AUTH_UNAVAILABLE"] = grpc.StatusCode.UNAVAILABLE


class FakeAuth(auth_service_pb2_grpc.AuthServiceServicer, user_service_pb2_grpc.UserServiceServicer):
    """Makes tokens "access-1", "access-2" ...; takes those in `good`."""

    def __init__(self) -> None:
        self.made = 0
        self.life_s = 300.0
        self.good: set[str] = set()
        self.refusals: list[str] = []
        self.seen: list[dict[str, str]] = []
        self.clock_ms = 0
        self.stale = "TOKEN_EXPIRED"

    def tokens(self) -> types_pb2.Tokens:
        self.made += 1
        self.good = {f"access-{self.made}"}
        made = types_pb2.Tokens(
            access_token=f"access-{self.made}",
            refresh_token=f"refresh-{self.made}",
            session_id="session",
            user_id="100001",
            account="100001",
        )
        made.access_expire_time.FromNanoseconds(int((time.time() + self.life_s) * 1e9))
        return made

    async def RefreshTokens(self, request: Any, context: Any) -> Any:
        await self._refuse_where_told(context)
        if request.refresh_token != f"refresh-{self.made}":
            await refuse(context, "CREDENTIAL_REVOKED")
        return self.tokens()

    async def ExchangeApiKey(self, _: Any, context: Any) -> Any:
        headers = dict(context.invocation_metadata())
        self.seen.append(headers)
        if self.clock_ms and abs(int(headers["x-pincex-timestamp"]) - self.clock_ms) > 5_000:
            await refuse(context, "TIMESTAMP_OUT_OF_WINDOW", server_time=str(self.clock_ms))
        await self._refuse_where_told(context)
        return self.tokens()

    async def GetUser(self, _: Any, context: Any) -> Any:
        token = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")
        if token not in self.good:
            await refuse(context, self.stale if token else "UNAUTHENTICATED")
        return types_pb2.User(user_id="100001", email=token)

    async def _refuse_where_told(self, context: Any) -> None:
        if self.refusals:
            await refuse(context, self.refusals.pop(0))


@pytest.fixture
def auth() -> FakeAuth:
    return FakeAuth()  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED


@pytest.fixture
async def target(auth: FakeAuth) -> AsyncIterator[str]:
    server = grpc.aio.server()
    auth_service_pb2_grpc.add_AuthServiceServicer_to_server(auth, server)
    user_service_pb2_grpc.add_UserServiceServicer_to_server(auth, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_a_token_that_has_most_of_its_life_left_is_used_as_it_is(auth: FakeAuth, target: str) -> None:
    async with ExchangeClient(target, credentials=LogIn(token_set(auth.tokens())), policy=QUICK) as exchange:
        assert (await exchange.auth.user()).email == "access-1"
    assert auth.made == 1


async def test_callers_that_wait_share_one_renewal(auth: FakeAuth, target: str) -> None:
    auth.life_s = 0.0
    old = token_set(auth.tokens())
    auth.life_s = 300.0
    kept: list[TokenSet] = []
    async with ExchangeClient(target, credentials=LogIn(old, kept.append), policy=QUICK) as exchange:
        users = await asyncio.gather(*(exchange.auth.user() for _ in range(8)))
    assert {user.email for user in users} == {"access-2"}
    assert [tokens.refresh_token for tokens in kept] == ["refresh-2"]


@pytest.mark.parametrize("stale", ["TOKEN_EXPIRED", "CREDENTIAL_REVOKED", "TOKEN_REFUSED"])
async def test_a_token_that_is_refused_for_its_age_or_key_is_renewed_once_for_all_that_used_it(
    auth: FakeAuth, target: str, stale: str
) -> None:
    auth.stale = stale
    async with ExchangeClient(target, credentials=LogIn(token_set(auth.tokens())), policy=QUICK) as exchange:
        auth.good.clear()
        users = await asyncio.gather(*(exchange.auth.user() for _ in range(8)))
    assert {user.email for user in users} == {"access-2"}
    assert auth.made == 2


async def test_a_call_does_not_renew_for_ever(auth: FakeAuth, target: str) -> None:
    credentials = LogIn(token_set(auth.tokens()))
    async with ExchangeClient(target, credentials=credentials, policy=QUICK) as exchange:
        auth.tokens = lambda: types_pb2.Tokens(access_token="never good", refresh_token="refresh-1")  # type: ignore[method-assign]
        auth.good.clear()
        with pytest.raises(Unauthenticated, match="TOKEN_EXPIRED"):
            await exchange.auth.user()


async def test_a_good_token_is_used_on_while_the_auth_service_is_away(auth: FakeAuth, target: str) -> None:
    auth.life_s = 60.0
    credentials = LogIn(token_set(auth.tokens()))
    credentials._renew_at = 0.0
    auth.refusals = ["AUTH_UNAVAILABLE"]
    async with ExchangeClient(target, credentials=credentials, policy=QUICK) as exchange:
        assert (await exchange.auth.user()).email == "access-1"
    assert not auth.refusals


async def test_a_session_that_was_ended_says_so(auth: FakeAuth, target: str) -> None:
    auth.life_s = 0.0
    old = token_set(auth.tokens())
    auth.refusals = ["CREDENTIAL_REVOKED"]
    async with ExchangeClient(target, credentials=LogIn(old), policy=QUICK) as exchange:
        with pytest.raises(ExchangeError, match="CREDENTIAL_REVOKED"):
            await exchange.auth.user()


async def test_a_key_signs_its_exchange_and_the_token_makes_the_calls(auth: FakeAuth, target: str) -> None:
    credentials = ApiKey(HmacSigner(API_KEY, SECRET))
    async with ExchangeClient(target, credentials=credentials, policy=QUICK) as exchange:
        assert (await exchange.auth.user()).email == "access-1"
        assert (await exchange.auth.user()).email == "access-1"
    (headers,) = auth.seen
    assert headers["x-api-key"] == API_KEY
    assert len(base64.b64decode(headers["x-pincex-signature"])) == 32
    assert base64.b64encode(SECRET).decode() not in str(headers)


async def test_a_clock_that_is_off_is_set_by_the_exchange_s(auth: FakeAuth, target: str) -> None:
    auth.clock_ms = time.time_ns() // 1_000_000 + 3_600_000
    async with ExchangeClient(target, credentials=ApiKey(HmacSigner(API_KEY, SECRET)), policy=QUICK) as exchange:
        assert (await exchange.auth.user()).email == "access-1"
    assert len(auth.seen) == 2
    assert auth.seen[0]["x-pincex-nonce"] != auth.seen[1]["x-pincex-nonce"]


async def test_who_has_no_credentials_sends_none(auth: FakeAuth, target: str) -> None:
    async with ExchangeClient(target, policy=QUICK) as exchange:
        with pytest.raises(Unauthenticated, match="UNAUTHENTICATED"):
            await exchange.auth.user()
    assert await Fixed(account="demo").metadata() == (("x-pincex-account", "demo"),)


def test_no_secret_shows_in_what_logs_print(auth: FakeAuth) -> None:
    tokens = token_set(auth.tokens())
    assert "access-1" not in repr(tokens)
    assert "refresh-1" not in repr(tokens)

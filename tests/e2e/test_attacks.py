"""What an attacker tries on the running exchange, each over the real Envoy: the other half of `tests/integration/stack/test_callers.py`,
which forges tokens and headers, and of `test_signed_requests.py`, which replays signatures. docs/AUTH.md lists all of them.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import secrets
import string
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pincex.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from pincex_client import ExchangeClient, RetryPolicy
from pincex_client.credentials import ApiKey, Fixed, LogIn, TokenSet, token_set
from pincex_client.errors import ExchangeError
from pincex_client.signing import HmacSigner, decode_key
from tests.edge_http import call
from tests.integration.journal.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from tests.stack_fixture import ProductionStack

ONCE = RetryPolicy(deadline=10.0, attempt_timeout=8.0)
LOGIN = "/api/v1/auth/login"
DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Person:
    """A user with a verified address and money."""

    email: str
    password: str
    tokens: TokenSet

    @property
    def account(self) -> str:
        """Its main account."""
        return self.tokens.account


class World:
    """The exchange, and people on it."""

    def __init__(self, stack: ProductionStack) -> None:
        self.stack = stack
        self.symbol = ""

    @asynccontextmanager
    async def client(self, credentials: Any = None) -> AsyncIterator[ExchangeClient]:
        exchange = self.stack.exchange
        async with ExchangeClient(
            exchange.edge_address,
            ops_target=exchange.ops_address,
            credentials=credentials if credentials is not None else Fixed(),
            policy=ONCE,
        ) as made:
            yield made

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[ExchangeClient]:
        async with self.client(Fixed(token=self.stack.log_in()["access_token"])) as made:
            yield made

    async def person(self) -> Person:
        email, password = f"{secrets.token_hex(6)}@example.com", f"planted-{secrets.token_urlsafe(12)}"
        async with self.client() as anonymous:
            await anonymous.auth.register(email, password)
            await anonymous.auth.verify_email(email, await self._mailed_code(email))
            tokens = await anonymous.auth.log_in(email, password)
        async with self.operator() as operator:
            for asset in (self.symbol[:5], self.symbol[5:]):
                await operator.admin.credit_account(tokens.account, asset, "1000")
        return Person(email, password, tokens)

    async def make_market(self) -> None:
        name = "".join(secrets.choice(string.ascii_uppercase) for _ in range(4))
        async with self.operator() as operator:
            await operator.admin.create_asset(f"A{name}", 4)
            await operator.admin.create_asset(f"B{name}", 4)
            market = await operator.admin.create_market(f"A{name}", f"B{name}", tick_size="0.01", lot_size="0.01")
        self.symbol = market.symbol

    async def _mailed_code(self, email: str) -> str:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                mails = [mail.read_text() for mail in (self.stack.exchange.home / "mailbox").glob("*.eml")]
                found = [code for mail in mails if email in mail for code in re.findall(r"(?m)^(\d{8})\b", mail)]
                if found:
                    return str(found[0])
                await asyncio.sleep(0.02)


@pytest.fixture
async def world(production_stack: ProductionStack) -> World:
    made = World(production_stack)
    await made.make_market()
    return made


async def refusal(work: Awaitable[Any]) -> ExchangeError:
    with pytest.raises(ExchangeError) as caught:
        await work
    return caught.value


async def test_an_order_of_another_is_not_found_whatever_is_tried(world: World) -> None:
    ann, mallory = await asyncio.gather(world.person(), world.person())
    async with world.client(LogIn(ann.tokens)) as hers, world.client(LogIn(mallory.tokens)) as his:
        order = await hers.place_order(world.symbol, "BUY", "1", "2", client_order_id="hers")
        tries = (
            his.get_order(order.order_id),
            his.cancel_order(order.order_id),
            his.replace_order(order.order_id, price="3", quantity="1"),
            his.reduce_order(order.order_id, quantity="0.5"),
        )
        assert {(await refusal(one)).reason for one in tries} == {"ORDER_NOT_FOUND"}
        async with his.session() as session:
            assert (await session.cancel(order.order_id)).reason == "ORDER_NOT_FOUND"
        assert await his.list_orders() == []
        assert (await hers.get_order(order.order_id)).status == "PENDING"


async def test_a_key_does_what_its_scopes_say_and_no_more(world: World) -> None:
    ann = await world.person()
    async with world.client(LogIn(ann.tokens)) as exchange:
        made = await exchange.auth.create_api_key("reader", ["READ"])
        beyond = await refusal(exchange.auth.create_api_key("boss", ["ADMIN"]))
    reader = ApiKey(HmacSigner(made.key.api_key, decode_key(made.secret)))
    async with world.client(reader) as exchange:
        assert {balance.available for balance in await exchange.list_balances()} == {1000}
        refused = [
            await refusal(exchange.place_order(world.symbol, "BUY", "1", "2")),
            await refusal(exchange.auth.create_api_key("another", ["READ"])),
        ]
        operators = await refusal(exchange.admin.engine_state())
    assert [(error.reason, error.metadata["scope"]) for error in refused] == [
        ("SCOPE_MISSING", "trade"),
        ("SCOPE_MISSING", "manage"),
    ]
    assert (beyond.reason, operators.reason) == ("SCOPE_MISSING", "PERMISSION_DENIED")


async def test_a_stolen_key_is_dead_within_a_second_its_streams_and_orders_too(world: World) -> None:
    ann = await world.person()
    async with world.client(LogIn(ann.tokens)) as exchange:
        made = await exchange.auth.create_api_key("stolen", ["READ", "TRADE"], cancel_orders_on_revoke=True)
        kept = await exchange.place_order(world.symbol, "BUY", "1", "2")
    stolen = ApiKey(HmacSigner(made.key.api_key, decode_key(made.secret)))
    async with world.client(stolen) as thief, thief.balance_stream() as stream:
        order = await thief.place_order(world.symbol, "BUY", "1", "3")
        await anext(stream)
        async with world.operator() as operator:
            await operator.admin.users.revoke_api_key(made.key.api_key, reason="stolen")
        revoked_at = time.monotonic()

        async def to_its_end() -> None:
            async for _ in stream:
                pass

        ended = await refusal(asyncio.wait_for(to_its_end(), DEADLINE_S))
        seconds = time.monotonic() - revoked_at
        called = await refusal(thief.list_balances())
    assert {ended.reason, called.reason} == {"CREDENTIAL_REVOKED"}
    print(f"the stream of a revoked key ended {seconds:.2f} s after the answer")
    async with world.client(LogIn(ann.tokens)) as exchange:

        async def cancelled() -> bool:
            return (await exchange.get_order(order.order_id)).status == "CANCELLED"

        await until(cancelled, DEADLINE_S)
        assert (await exchange.get_order(kept.order_id)).status == "PENDING", "placed by the person, not by the key"


async def test_a_refresh_token_that_is_used_twice_ends_the_session(world: World) -> None:
    ann = await world.person()
    async with world.client() as anonymous:
        stub: Any = auth_service_pb2_grpc.AuthServiceStub(anonymous.channel)
        first = auth_service_pb2.RefreshTokensRequest(refresh_token=ann.tokens.refresh_token)
        second = token_set(await stub.RefreshTokens(first))
        third = token_set(
            await stub.RefreshTokens(auth_service_pb2.RefreshTokensRequest(refresh_token=second.refresh_token))
        )
        # Somebody had kept the first; its successor was used, so this is no lost answer.
        async with world.client(LogIn(TokenSet("", 0.0, ann.tokens.refresh_token, "", "", ""))) as thief:
            assert (await refusal(thief.list_balances())).reason == "CREDENTIAL_REVOKED"
    async with world.client(Fixed(token=third.access_token)) as exchange:

        async def ended() -> bool:
            try:
                await exchange.list_balances()
            except ExchangeError as error:
                return error.reason == "CREDENTIAL_REVOKED"
            return False

        await until(ended, DEADLINE_S)


def guess(stack: ProductionStack, email: str, password: str, source: str) -> tuple[int, dict[str, Any]]:
    """One log-in from an address of this machine, as Envoy sees it."""
    connection = http.client.HTTPConnection(stack.exchange.edge_address, timeout=DEADLINE_S, source_address=(source, 0))
    try:
        body = json.dumps({"email": email, "password": password})
        connection.request("POST", LOGIN, body, {"content-type": "application/json"})
        response = connection.getresponse()
        status = json.loads(response.read())
    finally:
        connection.close()
    info: dict[str, Any] = next((detail for detail in status["details"] if "reason" in detail), {})
    return response.status, {"code": status["code"], "message": status["message"], "reason": info.get("reason")}


async def test_guessing_from_many_addresses_meets_the_same_wall_whether_the_user_exists_or_not(world: World) -> None:
    ann = await world.person()
    stack, nobody = world.stack, f"{secrets.token_hex(6)}@example.com"
    answers = []
    for email, network in ((ann.email, 7), (nobody, 8)):
        answers.append([guess(stack, email, "wrong-password", f"127.0.{network}.{host}") for host in range(1, 13)])
    known, unknown = answers

    assert known == unknown, "what is told says nothing of the name"
    reasons = [answer["reason"] for _, answer in known]
    assert reasons[0] == "CREDENTIALS_REFUSED"
    assert reasons[-1] == "TOO_MANY_ATTEMPTS"
    status, answer = guess(stack, ann.email, ann.password, "127.0.9.1")
    assert (status, answer["reason"]) == (429, "TOO_MANY_ATTEMPTS"), "the right password tells nothing either"


@pytest.mark.parametrize(
    "name",
    ["' OR 1=1 --", "x'; DROP TABLE users; --", "ann@example.com\u0000", "%27%20OR%20%271%27=%271", "a" * 5_000],
    ids=["or", "drop", "nul", "escaped", "long"],
)
async def test_sql_in_a_name_is_a_name(world: World, name: str) -> None:
    async with world.client() as anonymous:
        tried = await refusal(anonymous.auth.log_in(name, "some-password-1"))
        assert tried.reason in {"CREDENTIALS_REFUSED", "INVALID_FIELD", "MALFORMED_REQUEST", "TOO_MANY_ATTEMPTS"}
    async with world.operator() as operator:
        # Not found, and the tables are there.
        found = operator.admin.users.get(name[:100])
        assert (await refusal(found)).reason in {"USER_NOT_FOUND", "INVALID_FIELD", "MALFORMED_REQUEST"}
        assert await operator.admin.users.find(email=world.stack.email)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-pincex-principal": "100001", "x-pincex-roles": "admin"},
        {"x-pincex-service": "auth-service.1.00", "x-pincex-account": "100001"},
        {"x-forwarded-client-cert": "URI=spiffe://pincex/client/acme"},
        {"authorization": "Bearer a.b.c\t, Bearer x"},
        {"authorization": "Basic YW5uOmFubg=="},
    ],
    ids=["identity", "service", "certificate", "two tokens", "basic"],
)
def test_headers_from_outside_make_nobody(production_stack: ProductionStack, headers: dict[str, str]) -> None:
    for url, path in (
        (production_stack.exchange.edge_url, "/api/v1/balances"),
        (production_stack.exchange.ops_url, "/admin/accounts/locked"),
    ):
        answer = call(f"{url}{path}", headers=headers)
        assert answer.status == 401, answer.text


def test_oversized_headers_are_refused_and_harm_nobody(production_stack: ProductionStack) -> None:
    edge = production_stack.exchange.edge_url
    assert call(f"{edge}/api/v1/balances", headers={"authorization": "Bearer " + "x" * 60_000}).status == 431
    assert call(f"{edge}/api/v1/balances", headers={"authorization": "Bearer " + "x" * 20_000}).status in {401, 431}
    assert call(f"{edge}/api/v1/health").status == 200

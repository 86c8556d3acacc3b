"""WebSocket over TLS in the production profile, through the real edge: who gets in by what, and may do what then."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import InvalidHandshake, InvalidStatus

from exchange.stack.certificates.store import CertificateStore
from tests.edge_http import call
from tests.integration.websocket.speaker import Speaker, speaking

if TYPE_CHECKING:
    from tests.stack_fixture import ProductionStack

# Of the first user, who is the operator.
ACCOUNT = "100001"
CLIENT = "websocket-client"
SUBJECT = {"subject_uri": f"spiffe://pincex/client/{CLIENT}", "reason": "a test"}


def url(stack: ProductionStack, listener: str) -> str:
    return f"wss://localhost:{stack.exchange.instance('envoy')['ports'][listener]}/ws"


def trusting(stack: ProductionStack, client: str = "") -> ssl.SSLContext:
    """The authority is trusted, and with `client` its certificate shown."""
    store = CertificateStore(stack.exchange.home)
    context = ssl.create_default_context(cafile=str(store.authority))
    if client:
        store.create_client(client)
        context.load_cert_chain(store.client(client))
    return context


async def may(client: Speaker) -> tuple[str, str, str]:
    """What a connection gets: market data, its own orders, and an order; the type or the reason of each answer."""
    order = {"symbol": "NOSUCH", "side": "BUY", "order_type": "LIMIT", "quantity": "1", "price": "1"}
    answers = [
        await client.ask("subscribe", channel="status"),
        await client.ask("subscribe", channel="orders"),
        await client.ask("place", request=order),
    ]
    public, own, placed = (str(answer.get("reason", answer["type"])) for answer in answers)
    return public, own, placed


# Only who may trade hears that there is no such market.
NOBODY = ("subscribed", "UNAUTHENTICATED", "UNAUTHENTICATED")
TRADER = ("subscribed", "subscribed", "UNKNOWN_SYMBOL")


async def test_over_tls_a_token_lets_in_and_without_one_there_are_market_data(
    production_stack: ProductionStack,
) -> None:
    stack, context = production_stack, trusting(production_stack)
    bearer = stack.bearer()
    async with speaking(url(stack, "tls"), ssl=context) as client:
        assert client.seen[0]["account"] == ""
        assert await may(client) == NOBODY
        answer = await client.ask("login", token=bearer["authorization"].removeprefix("Bearer "))
        assert (answer["type"], answer["account"]) == ("logged_in", ACCOUNT)
        assert await may(client) == TRADER
    async with speaking(url(stack, "tls"), ssl=context, additional_headers=bearer) as client:
        assert (client.seen[0]["account"], "expire_time" in client.seen[0]) == (ACCOUNT, True)
        assert await may(client) == TRADER
    with pytest.raises(InvalidStatus) as refused:
        async with speaking(url(stack, "tls"), ssl=context, additional_headers={"authorization": "Bearer a.b.c"}):
            pass
    assert refused.value.response.status_code == 401


async def test_a_certificate_stands_for_a_token_until_it_is_taken_away(production_stack: ProductionStack) -> None:
    stack, there, operator = production_stack, url(production_stack, "mtls"), production_stack.bearer()
    context = trusting(stack, CLIENT)

    def on_ops(path: str, **fields: object) -> None:
        answer = call(f"{stack.exchange.ops_url}{path}", "POST", json.dumps({**SUBJECT, **fields}), operator)
        assert answer.status == 200, answer.text

    # Without a certificate there is no connection, whatever else is shown.
    with pytest.raises((InvalidHandshake, OSError)):
        async with speaking(there, ssl=trusting(stack), additional_headers=operator):
            pass
    with pytest.raises(InvalidStatus) as refused:
        async with speaking(there, ssl=context):
            pass
    assert (refused.value.response.status_code, b"not allowed here" in refused.value.response.body) == (401, True)
    on_ops("/admin/certificates", account=ACCOUNT, scopes=["READ", "TRADE"])
    async with speaking(there, ssl=context) as client:
        assert client.seen[0]["account"] == ACCOUNT
        assert await may(client) == TRADER
        on_ops("/admin/certificates:remove")
        ended: dict[str, Any] = await client.until(lambda one: one["type"] == "ended")
        assert (ended["channel"], ended["reason"]) == ("orders", "CREDENTIAL_REVOKED")
        assert await may(client) == ("subscribed", "CREDENTIAL_REVOKED", "CREDENTIAL_REVOKED")

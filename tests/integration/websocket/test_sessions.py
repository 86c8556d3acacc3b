"""What a client may do on its connection: logging in, private channels, orders, limits; and what ends it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from exchange.runtime.errors import ErrorReason
from exchange.websocket.updates import Kind, Update
from tests.integration.trading.engine_app import eventually
from tests.integration.websocket.scripted import ScriptedExchange, book, level, special
from tests.integration.websocket.speaker import mute_client

if TYPE_CHECKING:
    from tests.integration.websocket.conftest import Serve, Served

BIDS = [level("100.00", "1.00000")]
ORDER = {"symbol": "BTCUSD", "side": "BUY", "order_type": "LIMIT", "quantity": "1", "price": "1"}


def balances(sequence: int, prev: int = 0) -> Update:
    """A snapshot without `prev`, else a change."""
    body: dict[str, Any] = {"sequence": str(sequence), "prev_sequence": str(prev)}
    body["changed" if prev else "snapshot"] = {"balances": []}
    return Update(Kind.CHANGE if prev else Kind.SNAPSHOT, sequence, prev, "", body)


def orders(sequence: int, prev: int = 0, *, complete: bool = True) -> Update:
    """A snapshot, or a heartbeat at the place of the message before it."""
    token = f"t{sequence}" if complete else ""
    body: dict[str, Any] = {"sequence": str(sequence), "prev_sequence": str(prev), "resume_token": token}
    body["snapshot"] = {"orders": [], "complete": complete}
    return Update(Kind.SNAPSHOT, sequence, prev, token, body, partial=not complete)


def token_until(expires: float, **more: str) -> str:
    """An access token as far as this process looks at one."""
    text = json.dumps({"exp": expires, "acc": "100001", **more})
    claims = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return f"e30.{claims}.c2ln"


# --- who ---


async def test_a_login_says_whose_token_it_is_and_private_channels_are_opened_with_it(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: script.say(balances(7))
    async with served.speak() as client:
        answer = await client.ask("login", token="good")
        assert (answer["type"], answer["account"]) == ("logged_in", "100001")
        await client.subscribe("balances")
        opened = await exchange.stream("balances")
        assert opened.credentials is not None
        assert dict(opened.credentials.metadata)["authorization"] == "Bearer good"
        opened.say(balances(9, 7))
        assert (await client.update("balances"))["prev_sequence"] == "7"
        # A stream without tokens begins again with a snapshot.
        opened.cut()
        assert (await client.update("balances"))["prev_sequence"] == "0"


async def test_a_bad_token_is_refused_and_leaves_the_connection_as_it_was(
    served: Served, exchange: ScriptedExchange
) -> None:
    async with served.speak() as client:
        for token, reason in (("bad", "TOKEN_REFUSED"), (7, "TOKEN_REFUSED"), ("two words", "TOKEN_REFUSED")):
            answer = await client.ask("login", token=token)
            assert (answer["type"], answer["reason"]) == ("error", reason)
        assert (await client.ask("login"))["reason"] == "FIELD_REQUIRED"
        assert (await client.ask("login", token="good"))["account"] == "100001"
        assert (await client.ask("login", token="bad"))["reason"] == "TOKEN_REFUSED"
        assert (await client.ask("place", request=ORDER))["reason"] == "INSUFFICIENT_FUNDS"
        assert exchange.orders[-1][2].token == "good"


async def test_a_token_of_the_handshake_counts_and_a_bad_one_opens_nothing(
    served: Served, exchange: ScriptedExchange
) -> None:
    async with served.speak(welcomed=False, additional_headers={"authorization": "Bearer good"}) as client:
        assert (await client.next())["account"] == "100001"
    for headers in ({"authorization": "Bearer bad"}, {"authorization": "Basic good"}):
        with pytest.raises(InvalidStatus) as refused:
            async with served.speak(additional_headers=headers):
                pass
        assert refused.value.response.status_code == 401
        assert b"TOKEN_REFUSED" in refused.value.response.body


async def test_the_client_s_address_goes_with_its_calls(served: Served, exchange: ScriptedExchange) -> None:
    headers = {"x-forwarded-for": "198.51.100.7, 192.0.2.1", "x-pincex-account": "alice"}
    async with served.speak(additional_headers=headers) as client:
        await client.ask("place", request=ORDER)
        assert dict(exchange.orders[-1][2].metadata) == headers
        assert [one.socket.address for one in served.server.clients.values()] == ["192.0.2.1"]


async def test_another_account_may_not_take_over_private_channels(served: Served, exchange: ScriptedExchange) -> None:
    exchange.on_open = lambda script: script.say(balances(7))
    async with served.speak() as client:
        await client.ask("login", token="good")
        await client.subscribe("balances")
        assert (await client.ask("login", token="other"))["reason"] == "PROTOCOL_VIOLATION"
        await client.ask("unsubscribe", channel="balances")
        assert (await client.ask("login", token="other"))["account"] == "100002"


async def test_a_token_that_expires_is_told_and_what_needs_it_ends_with_that_reason(
    served: Served, exchange: ScriptedExchange
) -> None:
    token = token_until(time.time() + 0.3)
    exchange.accounts[token] = "100001"
    exchange.on_open = lambda script: script.say(orders(7) if script.key.channel == "orders" else book(10, BIDS, []))
    async with served.speak() as client:
        assert "expire_time" in await client.ask("login", token=token)
        await client.subscribe("orders")
        await client.subscribe("book", symbol="BTCUSD")
        notice = await client.until(lambda one: one["type"] == "notice")
        assert notice["reason"] == "TOKEN_EXPIRED"
        # The stream goes on until something cuts it; then the exchange asks for a token that counts.
        exchange.refusal = ErrorReason.TOKEN_EXPIRED
        exchange.opened["orders"][0].cut()
        ended = await client.until(lambda one: one["type"] == "ended")
        assert (ended["channel"], ended["reason"], ended["resume_token"]) == ("orders", "TOKEN_EXPIRED", "t7")
        exchange.refusal = 0
        assert (await client.ask("login", token="good"))["type"] == "logged_in"
        await client.subscribe("orders", resume_token=ended["resume_token"])
        assert exchange.opened["orders"][1].token == "t7"
        # Nothing else was disturbed.
        exchange.opened["book"][0].say(special(Kind.HEARTBEAT, 10))
        assert (await client.update("book", heartbeats=True))["sequence"] == "10"


async def test_who_has_a_certificate_and_no_token_is_told_to_connect_again_when_its_time_is_over(
    served: Served, exchange: ScriptedExchange
) -> None:
    token = token_until(time.time() + 0.2, crt="spiffe://pincex/client/acme")
    exchange.accounts[token] = "100001"
    async with served.speak(welcomed=False, additional_headers={"authorization": f"Bearer {token}"}) as client:
        assert "expire_time" in await client.next()
        notice = await client.next()
        assert (notice["reason"], "connect again" in notice["message"]) == ("TOKEN_EXPIRED", True)


async def test_a_private_channel_that_is_refused_is_told_with_the_request_s_id(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: script.fail(ErrorReason.UNAUTHENTICATED)
    async with served.speak() as client:
        answer = await client.ask("subscribe", channel="orders")
        assert (answer["type"], answer["reason"], answer["code"]) == ("error", "UNAUTHENTICATED", "UNAUTHENTICATED")


async def test_half_a_snapshot_is_not_continued_by_another(served: Served, exchange: ScriptedExchange) -> None:
    exchange.on_open = lambda script: script.say(orders(7, complete=False))
    async with served.speak() as client:
        await client.subscribe("orders")
        exchange.opened["orders"][0].cut()
        assert (await client.until(lambda one: one["type"] == "ended"))["reason"] == "UPSTREAM_UNAVAILABLE"


# --- orders ---


async def test_orders_are_carried_out_in_the_order_they_were_sent_and_answered_by_id(
    served: Served, exchange: ScriptedExchange
) -> None:
    async with served.speak() as client:
        for number in range(20):
            op, request = ("cancel", {"client_order_id": f"c{number}"}) if number % 2 else ("place", ORDER)
            await client.send(op=op, id=f"{number}", request=request)
        answers = [await client.until(lambda one: one["type"] == "error") for _ in range(20)]
        assert [one["id"] for one in answers] == [str(number) for number in range(20)]
        assert [op for op, _, _ in exchange.orders] == ["place", "cancel"] * 10
        first = answers[0]
        assert (first["reason"], first["op"], first["metadata"]) == ("INSUFFICIENT_FUNDS", "place", {"asset": "USD"})


async def test_orders_beyond_what_may_wait_are_refused_and_market_data_go_on(
    serve: Serve, exchange: ScriptedExchange
) -> None:
    exchange.order_gate = asyncio.Event()
    exchange.on_open = lambda script: script.say(book(10, BIDS, []))
    async with serve(waiting_orders=5) as served, served.speak() as client:
        for number in range(7):
            await client.send(op="place", id=f"{number}", request=ORDER)
            await asyncio.sleep(0)
        refused = await client.next()
        assert (refused["reason"], refused["code"]) == ("OVERLOADED", "RESOURCE_EXHAUSTED")
        await client.subscribe("book", symbol="BTCUSD")
        exchange.order_gate.set()
        answered = {
            (await client.until(lambda one: one["type"] == "error"))["id"] for _ in range(6 - (refused["id"] == "5"))
        }
        assert refused["id"] not in answered


# --- what is wrong with a message ---

BAD: list[tuple[str, str, str]] = [
    ("{", "MALFORMED_REQUEST", ""),
    ('"text"', "MALFORMED_REQUEST", ""),
    ("[]", "MALFORMED_REQUEST", ""),
    ("17", "MALFORMED_REQUEST", ""),
    ("null", "MALFORMED_REQUEST", ""),
    ("", "MALFORMED_REQUEST", ""),
    ("[" * 50_000, "MALFORMED_REQUEST", ""),
    ('{"op":"place","id":"x","request":' + '{"a":' * 10_000 + "1" + "}" * 10_001, "MALFORMED_REQUEST", ""),
    ('{"op":"ping","id":NaN}', "MALFORMED_REQUEST", ""),
    ('{"op":"ping","op":"place","id":"x"}', "MALFORMED_REQUEST", ""),
    ('{"op":"place","id":"x","request":{"symbol":"BTCUSD","symbol":"ETHUSD"}}', "MALFORMED_REQUEST", ""),
    ("{}", "FIELD_REQUIRED", ""),
    ('{"op":"dance","id":"x"}', "INVALID_FIELD", "x"),
    ('{"op":7,"id":"x"}', "INVALID_FIELD", "x"),
    ('{"op":"ping","id":7}', "INVALID_FIELD", ""),
    ('{"op":"ping","id":0}', "INVALID_FIELD", ""),
    ('{"op":"ping","id":""}', "INVALID_FIELD", ""),
    ('{"op":"ping","id":' + "9" * 4_000 + "}", "INVALID_FIELD", ""),
    ('{"op":"ping","id":"with space"}', "INVALID_FIELD", ""),
    ('{"op":"ping","id":"x","more":1}', "FIELD_NOT_ALLOWED", "x"),
    ('{"op":"subscribe","id":"x"}', "FIELD_REQUIRED", "x"),
    ('{"op":"subscribe","id":"x","channel":"gossip"}', "UNKNOWN_CHANNEL", "x"),
    ('{"op":"subscribe","id":"x","channel":["book"]}', "UNKNOWN_CHANNEL", "x"),
    ('{"op":"subscribe","id":"x","channel":"book"}', "FIELD_REQUIRED", "x"),
    ('{"op":"subscribe","id":"x","channel":"book","symbol":7}', "INVALID_FIELD", "x"),
    ('{"op":"subscribe","id":"x","channel":"book","symbol":"*"}', "UNKNOWN_SYMBOL", "x"),
    ('{"op":"subscribe","id":"x","channel":"ticker","symbol":""}', "UNKNOWN_SYMBOL", "x"),
    ('{"op":"subscribe","id":"x","channel":"book","symbol":"BTCUSD","depth":11}', "INVALID_FIELD", "x"),
    ('{"op":"subscribe","id":"x","channel":"book","symbol":"BTCUSD","depth":"10"}', "INVALID_FIELD", "x"),
    ('{"op":"subscribe","id":"x","channel":"book","symbol":"BTCUSD","depth":' + "9" * 400 + "}", "INVALID_FIELD", "x"),
    ('{"op":"subscribe","id":"x","channel":"book","symbol":"BTCUSD","depth":10.0}', "INVALID_FIELD", "x"),
    ('{"op":"subscribe","id":"x","channel":"book","symbol":"BTCUSD","interval_ms":false}', "INVALID_FIELD", "x"),
    ('{"op":"subscribe","id":"x","channel":"candles","symbol":"BTCUSD","interval":"2m"}', "INVALID_FIELD", "x"),
    ('{"op":"subscribe","id":"x","channel":"trades","symbol":"BTCUSD","depth":10}', "FIELD_NOT_ALLOWED", "x"),
    ('{"op":"subscribe","id":"x","channel":"orders","symbol":"BTCUSD"}', "FIELD_NOT_ALLOWED", "x"),
    ('{"op":"subscribe","id":"x","channel":"orders","resume_token":7}', "INVALID_RESUME_TOKEN", "x"),
    ('{"op":"unsubscribe","id":"x","channel":"gossip"}', "UNKNOWN_CHANNEL", "x"),
    ('{"op":"place","id":"x"}', "FIELD_REQUIRED", "x"),
    ('{"op":"place","id":"x","request":[]}', "INVALID_FIELD", "x"),
    ('{"op":"login","id":"x","account":"a b"}', "INVALID_FIELD", "x"),
]


async def test_every_bad_message_gets_its_reason_and_its_id_and_ends_nothing(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: script.say(book(10, BIDS, []))
    async with served.speak() as client:
        await client.subscribe("book", symbol="BTCUSD")
        found = []
        for text, _, _ in BAD:
            await client.socket.send(text)
            answer = await client.next()
            found.append((text, answer.get("reason"), answer.get("id", "")))
        assert found == BAD
        await client.socket.send(b'{"op":"ping"}')
        assert (await client.next())["reason"] == "MALFORMED_REQUEST"
        assert exchange.orders == []
        exchange.opened["book"][0].say(special(Kind.HEARTBEAT, 10))
        assert (await client.update("book", heartbeats=True))["sequence"] == "10"


async def test_a_frame_of_a_megabyte_ends_its_own_connection_with_a_reason_and_no_other(served: Served) -> None:
    async with served.speak() as client, served.speak() as other:
        await client.socket.send(json.dumps({"op": "ping", "id": "x" * 1_000_000}))
        code, reason = await client.closed()
        assert (code, (reason or "").partition(":")[0]) == (1009, "BODY_TOO_LARGE")
        assert (await other.ask("ping"))["type"] == "pong"
        await eventually(lambda: served.counts.closed["too_large"] == 1, "it is counted")


@pytest.mark.parametrize(("fragment_bytes", "compression"), [(1_000_000, None), (60_000, None), (60_000, "deflate")])
async def test_a_message_is_as_large_as_all_of_it_in_whatever_pieces_it_comes(
    served: Served, fragment_bytes: int, compression: str | None
) -> None:
    whole = " " * 1_000_000
    message = (whole[at : at + fragment_bytes] for at in range(0, len(whole), fragment_bytes))
    async with served.speak(compression=compression) as client, served.speak() as other:
        with contextlib.suppress(ConnectionClosed):
            await client.socket.send(message)
        code, reason = await client.closed()
        assert (code, (reason or "").partition(":")[0]) == (1009, "BODY_TOO_LARGE")
        assert (await other.ask("ping"))["type"] == "pong"


async def test_ten_thousand_subscriptions_are_too_many_and_those_within_the_limit_stay(
    serve: Serve, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: script.say(book(10, BIDS, [], script.key.symbol))
    async with serve(messages_per_second=1e6, messages_burst=1e6, subscriptions=50) as served, served.speak() as client:

        async def flood() -> None:
            for number in range(10_000):
                await client.send(op="subscribe", id=f"{number}", channel="book", symbol=f"S{number}")

        flooding = asyncio.create_task(flood())
        first = await client.until(lambda one: one["type"] == "error")
        assert (first["reason"], first["metadata"]) == ("TOO_MANY_SUBSCRIPTIONS", {"limit": "50"})
        await flooding
        assert (await client.ask("ping"))["type"] == "pong"
        assert served.counts.refused == {"TOO_MANY_SUBSCRIPTIONS": 10_000 - 50}
        assert served.server.subscriptions["book"] == 50
        assert len(exchange.opened["book"]) == 50


async def test_messages_beyond_the_rate_are_refused_and_far_too_many_end_the_connection(serve: Serve) -> None:
    limits = {"messages_per_second": 1.0, "messages_burst": 5.0, "refused_messages": 20}
    async with serve(**limits) as served, served.speak() as client:
        for number in range(6):
            await client.send(op="ping", id=f"{number}")
        answers = [await client.next() for _ in range(6)]
        assert [one["type"] for one in answers] == ["pong"] * 5 + ["error"]
        assert (answers[5]["id"], answers[5]["reason"], answers[5]["retry_after_ms"] > 0) == (
            "5",
            "QUOTA_EXCEEDED",
            True,
        )
        with contextlib.suppress(ConnectionClosed):
            for _ in range(30):
                await client.send(op="ping")
                await client.next()
        assert (await client.closed()) == (1008, "QUOTA_EXCEEDED: too many messages")
        await eventually(lambda: served.counts.closed["too_many_messages"] == 1, "it is counted")


# --- the handshake ---


@pytest.mark.parametrize(
    ("origin", "fine"),
    [
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("http://evil.example", False),
        ("null", False),
        ("http://localhost.evil.example", False),
    ],
)
async def test_pages_of_other_origins_may_not_connect(served: Served, origin: str, *, fine: bool) -> None:
    if fine:
        async with served.speak(origin=origin) as client:
            assert (await client.ask("ping"))["type"] == "pong"
        return
    with pytest.raises(InvalidStatus) as refused:
        async with served.speak(origin=origin):
            pass
    assert refused.value.response.status_code == 403


async def test_other_paths_are_not_there_and_readiness_is(served: Served) -> None:
    async def status_of(path: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.split(b" ")[1]

    assert await status_of("/readyz") == b"200"
    assert await status_of("/other") == b"404"
    # A request for /ws that is no handshake.
    assert await status_of("/ws") == b"426"


async def test_connections_beyond_the_limit_are_refused(serve: Serve) -> None:
    async with serve(connections=1) as served, served.speak() as client:
        with pytest.raises(InvalidStatus) as refused:
            async with served.speak():
                pass
        assert refused.value.response.status_code == 429
        assert (await client.ask("ping"))["type"] == "pong"


async def test_one_address_cannot_take_the_connections_of_the_others(serve: Serve) -> None:
    greedy, other = ({"x-forwarded-for": address} for address in ("198.51.100.7", "198.51.100.8"))
    async with serve(connections_of_address=2) as served:
        async with served.speak(additional_headers=greedy), served.speak(additional_headers=greedy) as second:
            with pytest.raises(InvalidStatus) as refused:
                async with served.speak(additional_headers=greedy):
                    pass
            assert refused.value.response.status_code == 429
            assert b"QUOTA_EXCEEDED" in refused.value.response.body
            async with served.speak(additional_headers=other):
                pass
            await second.socket.close()
            await eventually(lambda: len(served.server.clients) == 1, "its place is free")
            async with served.speak(additional_headers=greedy) as client:
                assert (await client.ask("ping"))["type"] == "pong"
        await eventually(lambda: not served.server.addresses, "nothing is kept of who has left")


# --- ends ---


async def test_idle_connections_are_closed_and_those_that_follow_something_stay(
    serve: Serve, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: script.say(book(10, BIDS, []))
    async with serve(idle_s=0.4, ping_interval_s=0.1) as served, served.speak() as idle, served.speak() as follows:
        await follows.subscribe("book", symbol="BTCUSD")
        code, reason = await idle.closed()
        assert (code, (reason or "").partition(":")[0]) == (1000, "idle")
        assert (await follows.ask("ping"))["type"] == "pong"


async def test_a_client_that_has_vanished_is_dropped_and_those_that_answer_stay(
    serve: Serve, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: script.say(book(10, BIDS, []))
    async with serve(ping_interval_s=0.1, ping_timeout_s=0.1, close_timeout_s=0.1) as served, served.speak() as stays:
        # Nobody tells the server that it is gone.
        with mute_client(served.server.port, op="subscribe", channel="book", symbol="BTCUSD"):
            await eventually(lambda: served.server.subscriptions["book"] == 1, "it follows")
            await eventually(lambda: served.counts.closed["no_pong"] == 1, "it is dropped")
            assert served.server.subscriptions["book"] == 0
        assert (await stays.ask("ping"))["type"] == "pong"


async def test_a_clean_up_closes_who_is_idle_and_nobody_whose_order_is_under_way(
    served: Served, exchange: ScriptedExchange
) -> None:
    exchange.order_gate = asyncio.Event()
    exchange.on_open = lambda script: script.say(book(10, BIDS, []))
    async with served.speak() as idle, served.speak() as follows, served.speak() as trades:
        await follows.subscribe("book", symbol="BTCUSD")
        await trades.send(op="place", id="1", request=ORDER)
        await eventually(
            lambda: any(client.session.orders_under_way for client in served.server.clients.values()), "it waits"
        )
        assert served.server.clean_up(60.0) == 0
        now = asyncio.get_running_loop().time()
        for client in served.server.clients.values():
            client.session.active_at = now - 100.0
        assert served.server.clean_up(60.0) == 1
        assert (await idle.closed())[0] == 1008
        exchange.order_gate.set()
        assert (await trades.next())["id"] == "1"
        assert (await follows.ask("ping"))["type"] == "pong"


async def test_a_server_that_stops_says_so_and_lets_nobody_in(served: Served) -> None:
    async with served.speak() as client:
        draining = asyncio.create_task(served.server.drain(0.2))
        assert (await client.next())["type"] == "drain"
        with pytest.raises(InvalidStatus) as refused:
            async with served.speak():
                pass
        assert refused.value.response.status_code == 503
        await draining
        await served.server.stop()
        assert (await client.closed()) == (1001, "DRAINING: connect again")

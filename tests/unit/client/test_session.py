"""Order sessions against a small exchange whose state outlives its server."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from pincex_client import (
    ExchangeClient,
    ExchangeError,
    InvalidRequest,
    OutcomeUnknown,
    Rejected,
    RetryPolicy,
    SessionClosed,
    requests,
)
from pincex_client.results import CommandResult
from pincex_client.session import OrderSession, ResultFuture
from tests.unit.client.conftest import QUICK, until
from tests.unit.client.fake_exchange import FakeExchange
from tests.unit.client.fake_server import FakeServer

FAST: dict[str, Any] = {"policy": QUICK, "reconnect_deadline": 5.0}


def order(number: int) -> Any:
    return requests.place_order("BTCUSD", "BUY", 1, 100, client_order_id=f"c{number}")


async def send_many(session: OrderSession, count: int) -> list[ResultFuture]:
    return [await session.send(order(number)) for number in range(count)]


def ids(results: list[CommandResult]) -> list[str]:
    return [result.client_order_id for result in results]


async def test_results_come_in_order_and_commands_travel_in_batches(
    client: ExchangeClient, exchange: FakeExchange
) -> None:
    async with client.session(**FAST) as session:
        results = await asyncio.gather(*await send_many(session, 500))
    assert ids(results) == [f"c{number}" for number in range(500)]
    assert session.batches < 50
    assert exchange.sessions == {}, "a closed session is over"


async def test_convenience_calls_cover_the_life_of_an_order(client: ExchangeClient) -> None:
    async with client.session(**FAST) as session:
        placed = await session.place("BTCUSD", "buy", "2", "100")
        assert (placed.status, placed.open_quantity) == ("PENDING", Decimal(2))
        assert (await session.reduce(placed.order_id, quantity=1)).open_quantity == 1
        assert (await session.replace(placed.order_id, price=99, quantity=3)).open_quantity == 3
        assert (await session.cancel(placed.order_id)).status == "CANCELLED"
        again = await session.cancel(placed.order_id)
        assert again.refused
        with pytest.raises(ExchangeError, match="ORDER_NOT_FOUND"):
            again.raise_if_refused()
        await session.place("BTCUSD", "sell", "2", "100")
        assert (await session.cancel_all("BTCUSD")).cancelled_count == 1


async def test_the_window_bounds_what_is_without_a_result(client: ExchangeClient, exchange: FakeExchange) -> None:
    exchange.max_outstanding = 10
    exchange.hold.clear()
    async with client.session(**FAST) as session:
        await send_many(session, 10)
        with pytest.raises(asyncio.QueueFull):
            session.submit(order(10))
        eleventh = asyncio.create_task(session.send(order(10)))
        assert not eleventh.done()
        exchange.hold.set()
        result = await (await eleventh)
    assert result.client_order_id == "c10"


async def test_batches_stay_within_what_the_server_takes(client: ExchangeClient, exchange: FakeExchange) -> None:
    exchange.max_batch_size = 7
    async with client.session(**FAST) as session:
        await asyncio.gather(*await send_many(session, 100))
    assert exchange.largest_batch == 7


async def test_commands_whose_results_were_lost_get_their_first_results_and_run_once(
    client: ExchangeClient, exchange: FakeExchange
) -> None:
    exchange.drop_before_results = 3
    async with client.session(**FAST) as session:
        results = await asyncio.gather(*await send_many(session, 200))
    assert ids(results) == [f"c{number}" for number in range(200)]
    assert exchange.executed == [f"c{number}" for number in range(200)]
    assert session.reconnects == 3
    assert session.resent > 0


async def test_a_killed_server_that_comes_back_is_ridden_through(
    client: ExchangeClient, exchange: FakeExchange, server: FakeServer
) -> None:
    async with client.session(**FAST) as session:
        first = await (await session.send(order(0)))
        exchange.hold.clear()  # applied, not answered, when the server dies
        unanswered = [await session.send(order(number)) for number in range(1, 50)]
        await until(lambda: len(exchange.executed) >= 50, "the commands were carried out")
        await server.kill()
        exchange.hold.set()
        later = [await session.send(order(number)) for number in range(50, 60)]
        await server.start()
        results = [first, *await asyncio.gather(*unanswered, *later)]
    assert ids(results) == [f"c{number}" for number in range(60)]
    assert exchange.executed == [f"c{number}" for number in range(60)]
    assert session.reconnects >= 1


async def test_a_drain_notice_moves_the_session_to_a_new_connection(
    client: ExchangeClient, exchange: FakeExchange
) -> None:
    exchange.drain_after_results = 2
    async with client.session(**FAST) as session:
        for number in range(5):
            assert (await (await session.send(order(number)))).client_order_id == f"c{number}"
    assert 1 <= session.reconnects <= 2, "a second notice may come over the connection of the first"
    assert exchange.executed == [f"c{number}" for number in range(5)]


async def test_a_forgotten_session_is_replaced_and_commands_go_again_by_client_id(
    client: ExchangeClient, exchange: FakeExchange
) -> None:
    async with client.session(**FAST) as session:
        await (await session.send(order(0)))
        exchange.drop_before_results = 1
        futures = [await session.send(order(number)) for number in range(1, 20)]
        await until(lambda: len(exchange.executed) >= 2, "the commands were carried out")
        exchange.sessions.clear()
        results = await asyncio.gather(*futures)
    assert ids(results) == [f"c{number}" for number in range(1, 20)]
    assert exchange.executed == [f"c{number}" for number in range(20)], "nothing ran twice"
    assert session.sessions_lost == 1


@pytest.mark.parametrize("reason", ["SESSION_NOT_FOUND", "JOURNAL_UNAVAILABLE", "COMMAND_NUMBER_OUT_OF_WINDOW"])
async def test_a_result_that_speaks_of_the_session_sends_its_command_again(
    client: ExchangeClient, exchange: FakeExchange, reason: str
) -> None:
    exchange.results_override = [reason]
    async with client.session(**FAST) as session:
        result = await (await session.send(order(0)))
    assert result.client_order_id == "c0"
    assert exchange.executed == ["c0"]


async def test_a_refusal_of_the_command_itself_is_its_result(client: ExchangeClient, exchange: FakeExchange) -> None:
    exchange.results_override = ["OVERLOADED", "INSUFFICIENT_FUNDS"]
    async with client.session(**FAST) as session:
        first, second = await asyncio.gather(*await send_many(session, 2))
    assert (first.reason, second.reason) == ("OVERLOADED", "INSUFFICIENT_FUNDS")
    assert isinstance(second.error(), Rejected)


async def test_a_command_without_an_id_is_never_sent_twice_under_a_new_number(
    client: ExchangeClient, exchange: FakeExchange
) -> None:
    nameless = order(0)
    nameless.client_order_id = ""
    exchange.drop_before_results = 1
    async with client.session(**FAST) as session:
        future = await session.send(nameless)
        await until(lambda: exchange.executed, "the command was carried out")
        exchange.sessions.clear()
        with pytest.raises(OutcomeUnknown):
            await future
    assert exchange.executed == [""]


async def test_a_mute_connection_is_given_up_and_replaced(client: ExchangeClient, exchange: FakeExchange) -> None:
    async with client.session(stale_after=0.05, ping_interval=60.0, **FAST) as session:
        exchange.hold.clear()
        future = await session.send(order(0))
        await until(lambda: session.reconnects, "the session connected again")
        exchange.hold.set()
        assert (await future).client_order_id == "c0"
    assert exchange.executed == ["c0"]


async def test_pings_keep_an_idle_session_from_looking_mute(client: ExchangeClient, exchange: FakeExchange) -> None:
    async with client.session(stale_after=0.5, ping_interval=0.05, **FAST) as session:
        # Twenty pings take longer than the watchdog waits.
        await until(lambda: exchange.pings >= 20, "pings were sent")
        assert session.reconnects == 0


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("TOO_MANY_SESSIONS", Rejected), ("SESSION_TAKEN_OVER", Rejected), ("INVALID_FIELD", InvalidRequest)],
)
async def test_a_refusal_to_open_is_raised(
    client: ExchangeClient, exchange: FakeExchange, reason: str, kind: type[ExchangeError]
) -> None:
    exchange.open_refusal = reason
    with pytest.raises(kind) as caught:
        await client.session(**FAST).open()
    assert caught.value.reason == reason


async def test_a_session_that_was_taken_over_fails_what_is_unanswered(
    client: ExchangeClient, exchange: FakeExchange
) -> None:
    session = await client.session(**FAST).open()
    exchange.open_refusal = "SESSION_TAKEN_OVER"
    exchange.drop_before_results = 1
    future = await session.send(order(0))
    with pytest.raises(Rejected, match="SESSION_TAKEN_OVER"):
        await future
    with pytest.raises(Rejected, match="SESSION_TAKEN_OVER"):
        await session.send(order(1))
    await session.detach()


async def test_an_outage_beyond_the_deadline_fails_the_commands(client: ExchangeClient, server: FakeServer) -> None:
    session = await client.session(policy=QUICK, reconnect_deadline=0.2).open()
    await server.kill()
    future = await session.send(order(0))
    with pytest.raises(ExchangeError) as caught:
        await future
    assert caught.value.reason == "UPSTREAM_UNAVAILABLE"
    await session.detach()


async def test_an_unreachable_exchange_is_said_when_opening(client: ExchangeClient, server: FakeServer) -> None:
    await server.kill()
    with pytest.raises(ExchangeError, match="UPSTREAM_UNAVAILABLE"):
        await client.session(policy=QUICK, reconnect_deadline=0.1).open()


async def test_a_server_that_says_nothing_to_an_opening_is_given_up(
    client: ExchangeClient, exchange: FakeExchange
) -> None:
    exchange.silent = True
    opening = client.session(policy=RetryPolicy(attempt_timeout=0.1), reconnect_deadline=0.2).open()
    with pytest.raises(ExchangeError, match="UPSTREAM_TIMEOUT"):
        await asyncio.wait_for(opening, 5.0)


async def test_a_detached_session_can_be_attached_to_by_its_id(client: ExchangeClient, exchange: FakeExchange) -> None:
    first = await client.session("mine", **FAST).open()
    await asyncio.gather(*await send_many(first, 3))
    await first.detach()
    with pytest.raises(SessionClosed):
        first.submit(order(9))
    async with client.session("mine", **FAST) as second:
        assert second.last_number == 3
        await (await second.send(order(3)))
        assert second.last_number == 4
    assert exchange.executed == ["c0", "c1", "c2", "c3"]


async def test_closing_waits_for_the_results(client: ExchangeClient, exchange: FakeExchange) -> None:
    async with client.session(**FAST) as session:
        futures = await send_many(session, 100)
    assert all(future.done() for future in futures)
    with pytest.raises(SessionClosed):
        session.submit(order(0))


async def test_floats_are_no_amounts(client: ExchangeClient) -> None:
    async with client.session(**FAST) as session:
        with pytest.raises(TypeError, match="quantity"):
            await session.place("BTCUSD", "BUY", 0.1, "100")  # type: ignore[arg-type]

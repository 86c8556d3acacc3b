"""OrderSession: batches, their results, and repeats over one connection after another."""

from __future__ import annotations

import pytest

from pincex.common.v1.errors_pb2 import ErrorReason
from pincex.trading.v1 import order_session_pb2 as pb
from pincex.trading.v1 import types_pb2
from tests.integration.trading.engine_app import STOP, Exchange, eventually, refused
from tests.integration.trading.session_client import (
    Session,
    buying,
    cancelling,
    cancelling_all,
    reducing,
    replacing,
    selling,
)

pytestmark = pytest.mark.each_role

RESTING = buying("0.01", "40000")


async def test_a_new_session_says_its_limits(exchange: Exchange) -> None:
    opened = (await Session.open(exchange.demo, "mm-1")).opened

    assert (opened.session_id, opened.last_number, opened.resumed) == ("mm-1", 0, False)
    assert (opened.result_window, opened.max_batch_size, opened.max_outstanding) == (8192, 1000, 4000)


async def test_commands_of_every_kind_get_their_results_in_order(exchange: Exchange) -> None:
    await exchange.maker.sell("0.25", "50000")
    session = await Session.open(exchange.demo)

    bought, replaced, reduced, cancelled, sold, all_gone = await session.run(
        1,
        buying("1", "50000", client_order_id="a"),
        replacing(client_order_id="a", price="49000", quantity="1", expected_filled_quantity="0.25"),
        reducing(client_order_id="a", quantity="0.5"),
        cancelling(client_order_id="a"),
        selling("0.1", "60000"),
        cancelling_all(symbol="BTCUSD"),
    )

    assert (bought.status, bought.filled_quantity, bought.open_quantity) == (types_pb2.PARTIAL, "0.25000", "0.75000")
    assert (bought.client_order_id, bought.filled_notional) == ("a", "12500.00000000")
    assert (replaced.order_id, replaced.open_quantity, replaced.status) == (
        bought.order_id,
        "1.00000",
        types_pb2.PARTIAL,
    )
    assert reduced.open_quantity == "0.50000"
    assert (cancelled.status, cancelled.cancel_reason) == (types_pb2.CANCELLED, types_pb2.REQUESTED)
    assert (cancelled.open_quantity, cancelled.filled_quantity) == ("", "0.25000")
    assert sold.status == types_pb2.PENDING
    assert (all_gone.cancelled_count, all_gone.order_id) == (1, "")
    first = bought.sequence
    assert [result.sequence for result in (replaced, reduced, cancelled, sold, all_gone)] == list(
        range(first + 1, first + 6)
    )


async def test_a_malformed_command_uses_up_its_number_and_stops_no_other(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    results = await session.run(
        1,
        RESTING,
        pb.SessionCommand(),
        buying("0.01", "1e5"),
        buying("0.01", "40000", symbol="NONE"),
        cancelling(order_id="1", client_order_id="x"),
        replacing(order_id="123456", price="1", quantity="1"),
        reducing(client_order_id="gone", quantity="1"),
        cancelling_all(symbol="NONE"),
        cancelling(order_id="abc"),
        RESTING,
    )

    assert [result.reason for result in results] == [
        0,
        ErrorReason.PROTOCOL_VIOLATION,
        ErrorReason.INVALID_DECIMAL,
        ErrorReason.UNKNOWN_SYMBOL,
        ErrorReason.FIELD_NOT_ALLOWED,
        ErrorReason.ORDER_NOT_FOUND,
        ErrorReason.ORDER_NOT_FOUND,
        ErrorReason.UNKNOWN_SYMBOL,
        ErrorReason.ORDER_NOT_FOUND,
        0,
    ]
    assert all(result.message for result in results[1:-1])
    assert (await session.run(11, RESTING))[0].reason == 0


async def test_refusals_by_the_state_are_results_too_and_are_repeated(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    commands = (
        buying("1000", "50000", client_order_id="rich"),
        cancelling(order_id="7"),
        buying("0.01", "", order_type=types_pb2.MARKET),
    )
    first = await session.run(1, *commands)

    assert [result.reason for result in first] == [
        ErrorReason.INSUFFICIENT_FUNDS,
        ErrorReason.ORDER_NOT_FOUND,
        ErrorReason.NO_LIQUIDITY,
    ]
    assert first[0].client_order_id == "rich"
    assert await session.run(1, *commands) == first


async def test_an_order_s_change_reads_the_market_of_an_order_just_before_it(exchange: Exchange) -> None:
    """The scales of ETHUSD differ from those of BTCUSD: the batch must have been applied up to there."""
    session = await Session.open(exchange.demo)
    _, reduced, _, replaced = await session.run(
        1,
        buying("2", "2000", symbol="ETHUSD", client_order_id="e"),
        reducing(client_order_id="e", quantity="0.5"),
        buying("2", "40000", client_order_id="b"),
        replacing(client_order_id="b", quantity="1.00001", price="40001"),
    )

    assert (reduced.open_quantity, replaced.open_quantity) == ("1.5000", "1.00001")


async def test_a_session_is_resumed_by_its_last_number_and_repeats_get_the_same_results(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    commands = [buying("0.01", f"{40000 + step}") for step in range(5)]
    first = await session.run(1, *commands)
    session.drop()
    await eventually(lambda: exchange.app.sessions.open_count == 0, "the connection is gone")

    again = await Session.open(exchange.demo)

    assert (again.opened.last_number, again.opened.resumed) == (5, True)
    assert await again.run(4, *commands[3:]) == first[3:]
    mixed = await again.run(5, commands[4], RESTING)
    assert mixed[0] == first[4]
    assert mixed[1].sequence > first[4].sequence
    assert len(await exchange.demo.listed()) == 6


async def test_a_number_repeated_with_another_body_is_a_duplicate(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    await session.run(1, RESTING)
    (result,) = await session.run(1, buying("0.02", "40000"))

    assert (result.reason, result.sequence > 0) == (ErrorReason.DUPLICATE_ID, True)
    assert len(await exchange.demo.listed()) == 1


async def test_a_repeat_from_long_ago_does_not_move_the_place_to_go_on(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    first = await session.run(1, RESTING, RESTING, RESTING)

    assert await session.run(1, RESTING) == first[:1]
    (fourth,) = await session.run(4, RESTING)
    assert fourth.sequence == first[-1].sequence + 1


@pytest.mark.parametrize("first_number", [0, 3, 2**63])
async def test_a_gap_in_the_numbers_ends_the_connection(exchange: Exchange, first_number: int) -> None:
    session = await Session.open(exchange.demo)
    await session.run(1, RESTING)
    await session.send(first_number, RESTING)
    refusal = await refused(session.stream.rest())

    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "COMMAND_NUMBER_OUT_OF_WINDOW")
    assert refusal.metadata == {"expected": "2", "got": str(first_number)}
    assert len(await exchange.demo.listed()) == 1


async def test_results_of_batches_before_a_broken_one_still_come(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    await session.send(1, RESTING)
    await session.send(2, RESTING)
    await session.send(9, RESTING)

    assert (await session.results()).first_number == 1
    assert (await session.results()).first_number == 2
    assert (await refused(session.stream.rest())).reason == "COMMAND_NUMBER_OUT_OF_WINDOW"


async def test_a_client_order_id_is_one_for_unary_calls_and_sessions(exchange: Exchange) -> None:
    order = await exchange.demo.buy("0.01", "40000", client_order_id="same")
    session = await Session.open(exchange.demo)
    repeated, other = await session.run(
        1, buying("0.01", "40000", client_order_id="same"), buying("0.02", "40000", client_order_id="same")
    )

    assert (repeated.order_id, repeated.sequence) == (order.order_id, order.sequence)
    assert other.reason == ErrorReason.DUPLICATE_ID


@pytest.mark.leader_only
async def test_two_sessions_of_one_account_number_on_their_own(exchange: Exchange) -> None:
    one, two = await Session.open(exchange.demo, "one"), await Session.open(exchange.demo, "two")

    (first,), (second,) = await one.run(1, RESTING), await two.run(1, RESTING)

    assert first.order_id != second.order_id
    assert exchange.app.sessions.open_count == 2


async def test_a_ping_is_answered_with_its_nonce_and_the_head(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    (placed,) = await session.run(1, RESTING)
    await session.ping(7)
    pong = (await session.stream.next()).pong

    assert (pong.nonce, pong.head_sequence) == (7, placed.sequence)


async def test_a_quiet_session_gets_heartbeats(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.service.session.HEARTBEAT_S", 0.02)
    session = await Session.open(exchange.demo)
    for _ in range(2):
        heartbeat = (await session.stream.next()).heartbeat
        assert heartbeat.head_sequence == exchange.engine.state.sequence
        assert heartbeat.HasField("server_time")


async def test_a_stop_order_may_be_reduced_while_it_sleeps(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    placed, reduced = await session.run(
        1,
        buying("1", "", order_type=STOP, stop_price="60000", client_order_id="s"),
        reducing(client_order_id="s", quantity="0.25"),
    )

    assert (placed.status, reduced.open_quantity) == (types_pb2.PENDING, "0.75000")


async def test_a_session_of_a_thousand_commands_a_batch_keeps_its_order(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    for batch in range(3):
        await session.send(1 + batch * 1000, *[RESTING] * 1000)
    found = [await session.results() for _ in range(3)]

    assert [results.first_number for results in found] == [1, 1001, 2001]
    sequences = [result.sequence for results in found for result in results.results]
    assert sequences == list(range(sequences[0], sequences[0] + 3000))

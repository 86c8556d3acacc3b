"""OrderSession: how sessions begin, are lost, taken over, expire and end; and clients that misbehave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from exchange.trading.journal.memory import MemoryJournal
from exchange.trading.service.attendance import SessionAttendance
from exchange.trading.service.session import Sessions
from pincex.trading.v1 import order_session_pb2 as pb
from pincex.trading.v1 import types_pb2
from tests.integration.trading.engine_app import Exchange, eventually, refused
from tests.integration.trading.session_client import Session, buying, seconds

RESTING = buying("0.01", "40000")
FASTER = 50


@pytest.fixture
def fast_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers of sessions run out in a fiftieth of their time."""
    real = SessionAttendance._set_timer

    def set_timer(attendance: SessionAttendance, key: tuple[str, str], delay: float) -> None:
        real(attendance, key, delay / FASTER)

    monkeypatch.setattr(SessionAttendance, "_set_timer", set_timer)


def open_orders(exchange: Exchange) -> int:
    return len(exchange.engine.state.accounts["demo"].orders)


def known_sessions(exchange: Exchange) -> set[str]:
    return set(exchange.engine.state.accounts["demo"].sessions)


# --- ends ---


async def test_close_ends_the_session_and_keeps_its_orders(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    await session.run(1, RESTING)
    await session.close()

    await eventually(lambda: not known_sessions(exchange), "the session is closed")
    assert open_orders(exchange) == 1
    assert (await Session.open(exchange.demo)).opened.last_number == 0


async def test_close_with_cancel_on_disconnect_cancels_the_session_s_orders_only(exchange: Exchange) -> None:
    kept = await exchange.demo.buy("0.01", "40000")
    session = await Session.open(exchange.demo, cancel_on_disconnect=True)
    (placed,) = await session.run(1, RESTING)
    await session.close()

    await eventually(lambda: open_orders(exchange) == 1, "the session's order is cancelled")
    gone = await exchange.demo.get(placed.order_id)
    assert (gone.status, gone.cancel_reason) == (types_pb2.CANCELLED, types_pb2.DISCONNECTED)
    assert (await exchange.demo.get(kept.order_id)).status == types_pb2.PENDING


async def test_a_connection_lost_beyond_its_grace_cancels(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0.05))
    await session.run(1, RESTING)
    session.drop()

    await eventually(lambda: open_orders(exchange) == 0, "the order is cancelled")
    assert known_sessions(exchange) == set()


async def test_no_grace_at_all_cancels_at_once(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0))
    await session.run(1, RESTING)
    await session.stream.call.done_writing()
    assert await session.stream.rest() == []

    await eventually(lambda: open_orders(exchange) == 0, "the order is cancelled")


async def test_attaching_again_within_the_grace_cancels_nothing(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0.2))
    await session.run(1, RESTING)
    session.drop()
    await eventually(lambda: exchange.app.sessions.open_count == 0, "the connection is gone")
    again = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0.2))

    assert again.opened.resumed
    assert exchange.app.attendance._timers == {}
    assert open_orders(exchange) == 1


async def test_a_session_without_cancel_on_disconnect_is_kept_for_an_hour(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo)
    await session.run(1, RESTING)
    session.drop()
    await eventually(lambda: exchange.app.sessions.open_count == 0, "the connection is gone")

    loop = asyncio.get_running_loop()
    timer = exchange.app.attendance._timers["demo", "s"]
    assert 3_500 < timer.when() - loop.time() <= 3_600
    exchange.app.attendance._expire(("demo", "s"))
    await eventually(lambda: not known_sessions(exchange), "the session is forgotten")
    assert open_orders(exchange) == 1


@pytest.mark.usefixtures("fast_timers")
async def test_the_dead_man_timer_cancels_when_nothing_comes(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo, dead_man_timeout=seconds(1))
    await session.run(1, RESTING)
    refusal = await refused(session.stream.rest())

    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "SESSION_NOT_FOUND")
    await eventually(lambda: open_orders(exchange) == 0, "the order is cancelled")


@pytest.mark.usefixtures("fast_timers")
async def test_pings_keep_the_dead_man_timer_from_running_out(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo, dead_man_timeout=seconds(10))
    await session.run(1, RESTING)
    armed = exchange.app.attendance._timers["demo", "s"].when()
    await session.ping(1)
    assert (await session.stream.next()).pong.nonce == 1

    await eventually(lambda: exchange.app.attendance._timers["demo", "s"].when() > armed, "the timer is set anew")
    assert open_orders(exchange) == 1


@pytest.mark.usefixtures("fast_timers")
async def test_a_lost_connection_with_a_dead_man_timer_waits_no_longer_than_it(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo, dead_man_timeout=seconds(1))
    await session.run(1, RESTING)
    session.drop()

    await eventually(lambda: open_orders(exchange) == 0, "the order is cancelled")


@pytest.mark.usefixtures("fast_timers")
async def test_the_dead_man_timer_works_for_a_client_that_never_reads(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in its way out may fill its room: the orders are cancelled all the same."""
    monkeypatch.setattr("exchange.trading.service.session.MAX_OUTSTANDING", 8)
    session = await Session.open(exchange.demo, dead_man_timeout=seconds(2.5))
    await session.run(1, RESTING)
    connection = exchange.app.sessions._connections["demo", "s"]
    while not connection.outbox.full():
        connection.outbox.put_nowait(pb.OrderSessionResponse(pong=pb.SessionPong()))

    exchange.app.attendance._expire(("demo", "s"))

    await eventually(lambda: open_orders(exchange) == 0, "the order is cancelled")


# --- connections of one session ---


async def test_a_newer_connection_takes_the_session_over(exchange: Exchange) -> None:
    older = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0))
    await older.run(1, RESTING)
    newer = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0))
    refusal = await refused(older.stream.rest())

    assert (refusal.code, refusal.reason) == ("ABORTED", "SESSION_TAKEN_OVER")
    assert (newer.opened.last_number, newer.opened.resumed) == (1, True)
    assert (await newer.run(2, RESTING))[0].reason == 0
    assert open_orders(exchange) == 2


async def test_the_seventeenth_session_of_an_account_is_refused(exchange: Exchange) -> None:
    for number in range(16):
        await Session.open(exchange.demo, f"s-{number}")
    refusal = await refused(Session.open(exchange.demo, "one-too-many"))

    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_SESSIONS")
    assert exchange.app.sessions.open_count == 16
    assert (await Session.open(exchange.demo, "s-3")).opened.resumed
    assert (await Session.open(exchange.maker, "one-too-many")).opened.last_number == 0


async def test_a_stopping_server_tells_its_sessions_and_cancels_nothing(exchange: Exchange) -> None:
    session = await Session.open(exchange.demo, cancel_on_disconnect=True, grace=seconds(0))
    await session.run(1, RESTING)
    engine = exchange.engine
    exchange.stopped.set()

    notice, end = await session.stream.rest()

    assert notice.drain.HasField("deadline_time")
    assert end.end.reason == "DRAINING"
    await exchange.stop()
    assert len(engine.state.accounts["demo"].orders) == 1


# --- misbehaviour ---


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"session_id": ""}, "session_id"),
        ({"session_id": "with space"}, "session_id"),
        ({"session_id": "x" * 65}, "session_id"),
        ({"grace": seconds(60.1)}, "grace"),
        ({"grace": seconds(-1)}, "grace"),
        ({"dead_man_timeout": seconds(0.5)}, "dead_man_timeout"),
        ({"dead_man_timeout": seconds(301)}, "dead_man_timeout"),
    ],
    ids=str,
)
async def test_settings_out_of_bounds_are_refused(exchange: Exchange, settings: dict[str, Any], field: str) -> None:
    session = Session(exchange.demo)
    await session.stream.send(pb.OrderSessionRequest(open=pb.OpenSession(**{"session_id": "s", **settings})))
    refusal = await refused(session.stream.rest())

    assert (refusal.code, refusal.reason, refusal.metadata["field"]) == ("INVALID_ARGUMENT", "INVALID_FIELD", field)


@pytest.mark.parametrize(
    "first",
    [
        pb.OrderSessionRequest(),
        pb.OrderSessionRequest(ping=pb.SessionPing(nonce=1)),
        pb.OrderSessionRequest(batch=pb.CommandBatch(first_number=1, commands=[RESTING])),
        None,
    ],
    ids=["empty", "ping", "batch", "nothing"],
)
async def test_a_session_begins_with_open(exchange: Exchange, first: pb.OrderSessionRequest | None) -> None:
    session = Session(exchange.demo)
    if first is None:
        await session.stream.call.done_writing()
    else:
        await session.stream.send(first)
    refusal = await refused(session.stream.rest())

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "PROTOCOL_VIOLATION")


@pytest.mark.parametrize("again", [pb.OrderSessionRequest(), pb.OrderSessionRequest(open=pb.OpenSession())], ids=str)
async def test_open_comes_once_and_no_message_is_empty(exchange: Exchange, again: pb.OrderSessionRequest) -> None:
    session = await Session.open(exchange.demo)
    await session.stream.send(again)

    assert (await refused(session.stream.rest())).reason == "PROTOCOL_VIOLATION"


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_of_no_or_too_many_commands_ends_the_connection(exchange: Exchange, count: int) -> None:
    session = await Session.open(exchange.demo)
    await session.send(1, *[RESTING] * count)
    refusal = await refused(session.stream.rest())

    assert (refusal.code, refusal.reason, refusal.metadata) == (
        "INVALID_ARGUMENT",
        "BATCH_TOO_LARGE",
        {"limit": "1000"},
    )
    assert open_orders(exchange) == 0


@pytest.mark.parametrize("after_open", [False, True])
async def test_garbage_ends_the_connection_with_a_reason_and_nothing_else(
    exchange: Exchange,
    after_open: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    channel: Any = exchange.public
    call = channel.stream_stream("/pincex.trading.v1.OrderService/OrderSession")()
    if after_open:
        await call.write(pb.OrderSessionRequest(open=pb.OpenSession(session_id="s")).SerializeToString())
        assert await call.read()
    await call.write(b"\xff\xff\xff\xff garbage")
    refusal = await refused(asyncio.wait_for(call.read(), 5))

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")
    assert (await exchange.demo.buy("0.01", "40000")).order_id
    await eventually(lambda: exchange.app.sessions.open_count == 0, "the connection is gone")


async def test_a_flood_beyond_what_may_be_outstanding_is_held_back_and_loses_nothing(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no result can be given, the server stops reading: so must the client stop sending in the end."""
    monkeypatch.setattr("exchange.trading.service.session.MAX_OUTSTANDING", 400)
    session = await Session.open(exchange.demo)
    connection = exchange.app.sessions._connections["demo", "s"]
    batches = 500
    taken: list[int] = []
    submit, append, release = Sessions._submit, MemoryJournal.append, asyncio.Event()

    def noted(sessions: Sessions, batch: pb.CommandBatch, to: Any) -> Any:
        taken.append(to.outstanding + len(batch.commands))
        return submit(sessions, batch, to)

    async def held(journal: MemoryJournal, frame: Any) -> None:
        await release.wait()
        await append(journal, frame)

    async def flood() -> None:
        for batch in range(batches):
            await session.send(1 + batch * 10, *[RESTING] * 10)

    monkeypatch.setattr(Sessions, "_submit", noted)
    monkeypatch.setattr(MemoryJournal, "append", held)
    flooding = asyncio.create_task(flood())
    await eventually(lambda: connection.outstanding == 400 and bool(connection.room._waiters), "it waits for room")
    assert len(taken) == 40
    release.set()
    numbers = [(await session.results()).first_number for _ in range(batches)]
    await flooding

    assert numbers == list(range(1, batches * 10, 10))
    assert max(taken) <= 400
    assert exchange.engine.state.accounts["demo"].sessions["s"].last_number == batches * 10
    assert (await exchange.maker.buy("0.01", "40000")).order_id

"""A client that does not read costs a bounded amount of memory and delays nobody."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.integration.trading.engine_app import eventually
from tests.integration.websocket.scripted import ScriptedExchange, book, book_change, level, status
from tests.integration.websocket.speaker import DEADLINE_S, mute_client, speaking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.websocket.conftest import Serve, Served
    from tests.integration.websocket.scripted import Script

# What the kernel keeps for a connection is little, so that a client falls behind at once.
SMALL: Any = {"write_buffer_bytes": 1_024, "linger_s": 0.1, "close_timeout_s": 0.2}
LEVELS = [level(f"{100 + number}.00", "1.00000") for number in range(40)]


def small_socket(port: int) -> socket.socket:
    """A connection whose receiver takes a few kilobytes only."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    found.connect(("127.0.0.1", port))
    found.setblocking(False)
    return found


def shrink(served: Served, address: object) -> None:
    """The same on the server's side of a connection."""
    (client,) = [one for one in served.server.clients if one.remote_address == address]
    client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)


def stalled(served: Served) -> Any:
    """A client that reads only when a test asks it to."""
    return speaking(served.url, sock=small_socket(served.server.port), compression=None, max_queue=1)


async def test_who_does_not_read_a_book_is_closed_and_the_others_get_everything(
    serve: Serve, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: script.say(book(10, [], []))
    async with serve(queue_messages=50, **SMALL) as served, served.speak() as reads, stalled(served) as sleeps:
        await reads.subscribe("book", symbol="BTCUSD")
        await sleeps.subscribe("book", symbol="BTCUSD")
        shrink(served, sleeps.socket.local_address)
        script = exchange.opened["book"][0]
        last = 10
        while not served.counts.closed["slow_consumer"]:
            for _ in range(20):
                script.say(book_change(last + 1, last, LEVELS, 0))
                last += 1
            for _ in range(20):
                assert (await reads.update("book"))["prev_sequence"] == str(int(reads.seen[-1]["data"]["sequence"]) - 1)
            assert last < 10_000
        assert int(reads.seen[-1]["data"]["sequence"]) == last
        assert served.counts.queue_high_water <= 51
        await eventually(lambda: len(served.server.clients) == 1, "its connection is over")


@asynccontextmanager
async def nobody_reads(served: Served, exchange: ScriptedExchange) -> AsyncIterator[None]:
    """A client that reads nothing, and for whom so much waits that nothing more goes out to it, no ping either."""
    exchange.on_open = lambda script: script.say(status(10, 0, "OPEN", snapshot=True))
    with mute_client(served.server.port, op="subscribe", channel="status") as mute:
        await eventually(lambda: served.server.subscriptions["status"] == 1, "it follows")
        shrink(served, mute.getsockname())
        await flood(served, await exchange.stream("status"))
        yield


async def flood(served: Served, script: Script) -> None:
    """Until nothing of what is said goes out any more, or nobody is left."""
    last, stuck = 10, 0
    while stuck < 5 and served.server.clients:
        before = served.counts.conflated
        for _ in range(20):
            script.say(status(last + 1, last, "HALTED", symbol=f"S{last % 50}X" + "Y" * 12))
            last += 1
        # The kernel takes what it still can.
        await asyncio.sleep(0.005)
        stuck = stuck + 1 if served.counts.conflated - before == 20 else 0
        assert last < 100_000


async def test_who_reads_nothing_and_is_not_heard_of_is_dropped_though_no_ping_reaches_it(
    serve: Serve, exchange: ScriptedExchange
) -> None:
    pings = {"ping_interval_s": 0.1, "ping_timeout_s": 0.1, "silence_s": 0.3}
    async with serve(**SMALL, **pings) as served, nobody_reads(served, exchange):
        await eventually(lambda: served.counts.closed["no_pong"] == 1, "it is dropped")
        assert not served.server.clients


async def test_a_server_that_stops_does_not_wait_for_who_does_not_read(
    serve: Serve, exchange: ScriptedExchange
) -> None:
    async with serve(**SMALL) as served, nobody_reads(served, exchange):
        async with asyncio.timeout(DEADLINE_S):
            await served.server.stop()
        assert not served.server.clients


async def test_who_reads_a_conflated_channel_slowly_gets_the_newest_and_stays(
    serve: Serve, exchange: ScriptedExchange
) -> None:
    exchange.on_open = lambda script: script.say(status(10, 0, "OPEN", snapshot=True))
    async with serve(queue_messages=5, **SMALL) as served, served.speak() as reads, stalled(served) as sleeps:
        await reads.subscribe("status")
        await sleeps.subscribe("status")
        shrink(served, sleeps.socket.local_address)
        script = exchange.opened["status"][0]
        last = 10
        while served.counts.conflated < 100:
            for _ in range(100):
                script.say(status(last + 1, last, "HALTED", symbol=f"S{last % 50}X" + "Y" * 12))
                last += 1
            for _ in range(100):
                await reads.update("status")
            assert last < 100_000
        # It wakes up: at the end it has the newest, and whatever it left out came as a whole.
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["sequence"] != str(last):
            data = await sleeps.update("status")
            assert data["snapshot"] or data["prev_sequence"] == (seen[-1]["sequence"] if seen else "10")
            seen.append(data)
        assert len(seen) < last - 10
        assert any(data["snapshot"] for data in seen)
        assert len(served.server.clients) == 2

"""A channel: one publisher, subscribers that are but positions."""

from __future__ import annotations

import asyncio

import pytest

from exchange.runtime.feeds.channel import Channel, follow


def filled(*sequences: int, kept: int = 4, start: int = 10) -> Channel:
    channel = Channel(start, kept=kept)
    for sequence in sequences:
        channel.publish(sequence, f"{sequence}".encode())
    return channel


@pytest.mark.parametrize(
    ("sequence", "position"),
    [
        (10, 0),  # where the channel began
        (11, 1),
        (13, 2),
        (15, 3),
        (12, None),  # no item ends there: the reader may have missed what came between
        (9, None),  # before the channel
        (16, None),  # beyond it
    ],
)
def test_a_reader_goes_on_only_after_an_item_that_it_has(sequence: int, position: int | None) -> None:
    assert filled(11, 13, 15).position_after(sequence) == position


def test_a_reader_goes_on_after_the_last_of_several_items_at_one_place() -> None:
    assert filled(11, 11, 12).position_after(11) == 2


def test_the_ring_keeps_the_newest_and_knows_what_the_oldest_follows() -> None:
    channel = filled(11, 12, 13, 14, 15, 16)

    assert (channel.start, channel.end) == (2, 6)
    assert [channel.item(position) for position in range(2, 6)] == [b"13", b"14", b"15", b"16"]
    assert channel.position_after(12) == 2
    assert channel.position_after(11) is None


async def read_all(channel: Channel, position: int) -> list[bytes]:
    return [message async for message in follow(channel, position, lambda: b"too slow")]


async def test_a_follower_gets_what_is_there_and_what_comes_until_the_end() -> None:
    channel = filled(11)
    reading = asyncio.create_task(read_all(channel, 0))
    await asyncio.sleep(0)
    assert channel.subscribers == 1
    channel.publish(12, b"12")
    await asyncio.sleep(0)
    channel.publish(13, b"13")
    channel.close()

    assert await reading == [b"11", b"12", b"13"]
    assert channel.subscribers == 0


async def test_a_follower_that_the_ring_has_passed_gets_one_last_word() -> None:
    channel = filled(11, 12, 13, 14, 15, 16)

    assert await read_all(channel, 1) == [b"too slow"]


async def test_a_closed_channel_makes_nobody_wait() -> None:
    channel = filled()
    channel.close()

    await channel.wait(0)
    assert await read_all(channel, 0) == []


async def test_a_waiter_that_left_is_not_woken() -> None:
    channel = filled()
    waiting = asyncio.create_task(channel.wait(0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    channel.publish(11, b"11")
    await channel.wait(0)

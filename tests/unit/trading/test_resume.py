"""Resume tokens, and the hub that they are read against."""

from __future__ import annotations

import asyncio
import base64

import pytest

from exchange.runtime.feeds.tokens import BadToken, Position, parse, short_hash
from exchange.trading.core.events import BALANCE_ADJUSTED, ORDER_ACCEPTED, T_MAKER_ACCOUNT, T_TAKER_ACCOUNT, TRADE
from exchange.trading.feeds import hub as hub_module
from exchange.trading.feeds.hub import Hub, accounts_of, offsets_by_account
from exchange.trading.feeds.resume import same_history
from exchange.trading.journal.memory import MemoryJournal
from exchange.trading.sequencer import Committed

HERE = "0d6a3c1e"


def committed(first: int, last: int, account: str = "a") -> Committed:
    event = (ORDER_ACCEPTED, first, account, 0, 1, 100)
    return Committed(first, last, first, bytes([first]) * 32, [[event]] * (last - first + 1))


def hub_of(*frames: Committed) -> Hub:
    hub = Hub(MemoryJournal())
    for frame in frames:
        hub.publish(frame)
    return hub


def place(sequence: int, frame_hash: bytes, **other: object) -> Position:
    fields = {"incarnation": HERE, "shard": 0, "index": -1, **other}
    return Position(sequence=sequence, frame_hash=short_hash(frame_hash), **fields)  # type: ignore[arg-type]


def test_a_token_gives_its_place_back() -> None:
    position = place(17, b"x" * 32, index=3)

    assert parse(position.token()) == position
    assert "=" not in position.token()


@pytest.mark.parametrize(
    "token",
    [
        "",
        "A",
        "é",
        "not base64!",
        base64.urlsafe_b64encode(b"a|b").decode(),
        base64.urlsafe_b64encode(b"a|0|x|0|h").decode(),
        base64.urlsafe_b64encode(b"a|0|1|0|h|s|more").decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        Position(HERE, 0, -1, -1, "").token(),
        Position(HERE, 0, 2**62 + 1, -1, "").token(),
        Position(HERE, 0, 1, -2, "").token(),
        "A" * 100_000,
    ],
)
def test_what_is_no_token_cannot_be_read(token: str) -> None:
    with pytest.raises(BadToken):
        parse(token)


@pytest.mark.parametrize(
    ("position", "same"),
    [
        (place(0, b""), True),
        (place(1, bytes([1]) * 32), True),
        (place(3, bytes([3]) * 32), True),
        (place(4, bytes([3]) * 32), True),  # in the middle of its frame
        (place(4, bytes([4]) * 32), False),
        (place(9, bytes([9]) * 32), False),  # beyond the head
        (place(1, bytes([1]) * 32, incarnation="other"), False),
        (place(1, bytes([1]) * 32, shard=1), False),
    ],
)
async def test_a_place_is_of_this_history_if_the_frame_there_is_the_very_same(position: Position, same: bool) -> None:  # noqa: FBT001
    hub = hub_of(committed(1, 1), committed(2, 2), committed(3, 5))

    assert await same_history(position, HERE, 0, hub) is same


async def test_the_hub_reads_from_the_middle_of_a_frame_to_the_head() -> None:
    hub = hub_of(committed(1, 1), committed(2, 4), committed(5, 5))

    assert [frame.first_sequence async for frame in hub.read(3)] == [2, 5]
    assert [frame.first_sequence async for frame in hub.read(6)] == []


async def test_what_the_hub_keeps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RECENT_COMMANDS", 10)
    monkeypatch.setattr(hub_module, "TRIM_COMMANDS", 10)
    hub = Hub(MemoryJournal())
    for sequence in range(1, 100):
        hub.publish(committed(sequence, sequence))

        assert len(hub._recent) == len(hub._starts) <= 20
        assert hub._recent_commands == len(hub._recent)
    assert [frame.first_sequence async for frame in hub.read(hub._starts[0])] == hub._starts


async def test_waiting_for_the_head_ends_with_a_frame_a_close_or_time() -> None:
    hub = hub_of(committed(1, 1))

    assert await hub.wait_beyond(0, 1)
    assert not await hub.wait_beyond(1, 0.001)
    waiting = asyncio.create_task(hub.wait_beyond(1, 5))
    await asyncio.sleep(0)
    hub.publish(committed(2, 2))
    assert await waiting
    waiting = asyncio.create_task(hub.wait_beyond(2, 5))
    await asyncio.sleep(0)
    hub.close(91)
    assert await waiting
    assert await hub.wait_account("a", 5)
    assert hub._waiting == []


async def test_an_account_s_reader_is_woken_for_its_own_frames_only() -> None:
    hub = hub_of()
    mine = asyncio.create_task(hub.wait_account("me", 5))
    await asyncio.sleep(0)
    hub.publish(committed(1, 1, "you"))
    await asyncio.sleep(0)
    assert not mine.done()
    hub.publish(committed(2, 2, "me"))

    assert await mine


async def test_a_reader_that_is_cancelled_leaves_nothing_behind() -> None:
    hub = hub_of()
    waiting = asyncio.create_task(hub.wait_account("me", 5))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert not any(hub._waiting_accounts.values())
    hub.close(91)
    assert not hub._waiting_accounts


def test_an_event_concerns_all_whose_orders_or_money_it_touches() -> None:
    event = [0] * 21
    event[0] = TRADE
    event[T_MAKER_ACCOUNT], event[T_TAKER_ACCOUNT] = "m", "t"  # type: ignore[call-overload]

    assert accounts_of(tuple(event)) == ("m", "t")
    assert accounts_of((ORDER_ACCEPTED, 1, "a", 0, 1, 2)) == ("a",)
    assert accounts_of((BALANCE_ADJUSTED, 1, "a", 0, 5, "", "ref")) == ("a",)
    assert accounts_of((BALANCE_ADJUSTED, 5, "a", 0, 5, "b", "ref")) == ("a", "b")
    assert accounts_of((15, 0, "hash")) == ()


def test_commands_are_filed_once_for_each_account() -> None:
    one, two = (ORDER_ACCEPTED, 1, "a", 0, 1, 2), (ORDER_ACCEPTED, 2, "b", 0, 1, 2)
    found = offsets_by_account(Committed(1, 3, 0, b"", [[one, one], [two], [one, two]]))

    assert found == {"a": [0, 2], "b": [1, 2]}

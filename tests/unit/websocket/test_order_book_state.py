"""The book order by order as it is kept for who joins late: the exchange's own, in its order of priority."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings

from exchange.websocket.channels import read_key
from exchange.websocket.service.updates import as_json, update_of
from exchange.websocket.states import WrongState, state_of
from tests.unit.market_data.engine_history import EngineHistory, Wish
from tests.unit.market_data.streams_rig import Instance, Reader, settle
from tests.unit.market_data.wishes import frames

if TYPE_CHECKING:
    from typing import Any


# Two orders at one price; then the first one grows, and loses its place to the other.
TWO = [(9, 0, 0, 3_990, 5, 1), (9, 1, 0, 3_990, 5, 1)]
GROWS = [(2, 0, 0, 3_990, 2, 0)]


@given(before=frames, after=frames)
@example(before=[TWO], after=[GROWS])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_after_each_message_the_snapshot_is_the_one_that_the_exchange_would_send(
    before: list[list[Wish]], after: list[list[Wish]]
) -> None:
    asyncio.run(_follow(before, after))


async def _follow(before: list[list[Wish]], after: list[list[Wish]]) -> None:
    history = EngineHistory()
    for wish in (wish for wishes in before for wish in wishes):
        history.wish(wish)
    history.batch()
    instance = Instance(history.snapshot())
    reader, state = Reader(instance, "orders"), state_of(read_key({"channel": "book-orders", "symbol": "XY"}))
    await settle()
    for wishes in [[], *after]:
        if wishes:
            for wish in wishes:
                history.wish(wish)
            instance.take(history.batch())
            await settle()
        for message in reader.messages:
            state.apply(update_of(message))
        reader.messages.clear()
        wanted: dict[str, Any] = as_json(instance.orders._feeds["XY"].snapshot())
        shown = state.snapshot()
        assert (shown["snapshot"], shown["checksum"]) == (wanted["snapshot"], wanted["checksum"])
        assert shown["prev_sequence"] == "0"
    await reader.stop()


def test_a_book_by_orders_that_differs_is_not_shown() -> None:
    state = state_of(read_key({"channel": "book-orders", "symbol": "XY"}))
    history = EngineHistory()
    instance = Instance(history.snapshot())
    message = _first(instance)
    message.checksum += 1
    state.apply(update_of(message))
    with pytest.raises(WrongState):
        state.snapshot()


def _first(instance: Instance) -> Any:
    async def read() -> Any:
        reader = Reader(instance, "orders")
        await settle()
        await reader.stop()
        return reader.messages[0]

    return asyncio.run(read())

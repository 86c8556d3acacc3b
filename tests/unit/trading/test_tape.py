"""The tape of executions: bounded, paged without a hole, and each account's own."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.trading.core.events import (
    ORDER_ACCEPTED,
    T_INDEX,
    T_MAKER_ACCOUNT,
    T_MAKER_ORDER,
    T_MARKET,
    T_TAKER_ACCOUNT,
    T_TAKER_ORDER,
    TRADE,
)
from exchange.trading.feeds import tape as tape_module
from exchange.trading.feeds.tape import TradeTape
from exchange.trading.sequencer import Committed


def trade(number: int, maker: str = "m", taker: str = "t", market: int = 0) -> tuple[Any, ...]:
    """A trade between orders `number` and `number + 1`."""
    event: list[Any] = [0] * 21
    event[0] = TRADE
    for position, value in (
        (T_INDEX, 1),
        (T_MARKET, market),
        (T_MAKER_ORDER, number),
        (T_TAKER_ORDER, number + 1),
        (T_MAKER_ACCOUNT, maker),
        (T_TAKER_ACCOUNT, taker),
    ):
        event[position] = value
    return tuple(event)


def frame(first: int, *commands: list[tuple[Any, ...]]) -> Committed:
    """Each command's trades, behind its acceptance."""
    events = [[(ORDER_ACCEPTED,), *trades] for trades in commands]
    return Committed(first, first + len(commands) - 1, first * 10, b"hash", events)


def filled(count: int, **tape: Any) -> TradeTape:
    found = TradeTape(**tape)
    for number in range(count):
        found.frame(frame(number + 1, [trade(number * 10)]))
    return found


def market_pages(tape: TradeTape, size: int) -> list[int]:
    sequences, before = [], 0
    while True:
        page, before = tape.market_trades(0, before, size)
        assert len(page) <= size
        sequences += [entry.sequence for entry in page]
        if not before:
            return sequences


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 100])
def test_pages_of_a_market_hold_every_trade_once_newest_first(size: int) -> None:
    assert market_pages(filled(6), size) == [6, 5, 4, 3, 2, 1]


def test_trades_that_come_between_two_pages_shift_nothing() -> None:
    tape = filled(4)
    _, before = tape.market_trades(0, 0, 2)
    tape.frame(frame(9, [trade(900)]))

    page, _ = tape.market_trades(0, before, 2)
    assert [entry.sequence for entry in page] == [2, 1]


def test_the_commands_of_a_frame_have_their_own_sequences() -> None:
    tape = TradeTape()
    tape.frame(frame(5, [], [trade(1), trade(2)], [], [trade(3)]))

    assert market_pages(tape, 10) == [8, 6, 6]


def test_an_account_trades_with_itself_as_both() -> None:
    tape = TradeTape()
    tape.frame(frame(1, [trade(10, "a", "b")], [trade(20, "a", "a")], [trade(30, "b", "a")]))

    rows, before, pages = [], 0, 0
    while True:
        page, before = tape.own_trades("a", -1, 0, before, 1)
        pages += 1
        rows += [(entry.sequence, maker) for entry, maker in page]
        if not before:
            break
    assert rows == [(3, False), (2, False), (2, True), (1, True)]
    assert pages == 4


def test_own_trades_are_filtered_by_market_and_order() -> None:
    tape = TradeTape()
    tape.frame(frame(1, [trade(10, "a")], [trade(20, "a", market=1)], [trade(10, "a", "c")]))

    def sequences(account: str, market: int, order_id: int) -> list[int]:
        page, following = tape.own_trades(account, market, order_id, 0, 10)
        assert not following
        return [entry.sequence for entry, _ in page]

    assert sequences("a", -1, 0) == [3, 2, 1]
    assert sequences("a", 1, 0) == [2]
    assert sequences("a", -1, 10) == [3, 1]
    assert sequences("c", -1, 11) == [3]
    assert sequences("nobody", -1, 0) == []


def test_what_is_kept_is_bounded_in_all_and_by_market(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape_module, "KEPT_PER_MARKET", 3)
    tape = filled(10, kept=5)

    assert market_pages(tape, 10) == [10, 9, 8]
    assert [entry.sequence for entry, _ in tape.own_trades("m", -1, 0, 0, 10)[0]] == [10, 9, 8, 7, 6]
    tape.frame(frame(20, *([trade(number, "x", "y")] for number in range(5))))
    assert set(tape._accounts) == {"x", "y"}


def test_a_tape_begins_anew_with_another_core() -> None:
    tape = filled(3)
    tape.reset()

    assert (market_pages(tape, 10), tape.own_trades("m", -1, 0, 0, 10)) == ([], ([], 0))

"""A copy of the book kept from events alone equals the core's own after every command."""

from __future__ import annotations

import random
from typing import Any

import pytest

from exchange.runtime.feeds.levels import checksum_of
from exchange.trading.core import book
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import BUY, GTC, IOC, LIMIT, SELL, STOP, STOP_LIMIT, STP_NONE
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import R_ORDER_ID, R_REASON
from exchange.trading.feeds.balances import BalanceCopy
from exchange.trading.feeds.book_mirror import BookMirror

ACCOUNTS = ("a", "b", "c")


def open_exchange() -> Engine:
    engine = Engine()
    definition = ("XY", 0, 1, 1, 0, 1, 1, 0, 0, 1_000, 2_000, 0, 50_000, 2, 0)
    setup = [cmd.create_asset("ops", "X", 0), cmd.create_asset("ops", "Y", 6), cmd.create_market("ops", definition)]
    setup.append(cmd.create_market("ops", ("XZ", *definition[1:])))
    setup += [
        cmd.credit(name, asset, 10**15, request_id=f"{name}{asset}")
        for name in (*ACCOUNTS, "$other")
        for asset in (0, 1)
    ]
    for command in setup:
        apply(engine, command)
        assert engine.result[R_REASON] == 0
    return engine


def apply(engine: Engine, command: cmd.Command) -> list[tuple[Any, ...]]:
    return engine.apply(engine.state.sequence + 1, engine.state.time_ns + 1, command)


def any_command(engine: Engine, chance: random.Random) -> cmd.Command:
    account = chance.choice(ACCOUNTS)
    own = list(engine.state.accounts[account].orders)
    what = chance.random()
    price, lots = 1_000 + chance.randint(-12, 12), chance.randint(1, 30)
    if own and what < 0.15:
        return cmd.cancel(account, order_id=chance.choice(own))
    if own and what < 0.3:
        return cmd.replace(account, lots, price, order_id=chance.choice(own))
    if own and what < 0.4:
        return cmd.reduce(account, chance.randint(1, 10), order_id=chance.choice(own))
    side, market = chance.choice((BUY, SELL)), chance.choice((0, 0, 0, 1))
    stp = chance.choice((0, STP_NONE, 3, 4))
    if what < 0.5:
        return cmd.place(account, market, side, STOP, lots, 0, tif=IOC, stop=price, stp=stp)
    if what < 0.6:
        return cmd.place(account, market, side, STOP_LIMIT, lots, price, tif=GTC, stop=price, stp=stp)
    if what < 0.62:
        return cmd.cancel_all(account)
    return cmd.place(account, market, side, LIMIT, lots, price, tif=chance.choice((GTC, GTC, GTC, IOC)), stp=stp)


def levels(mirror: BookMirror) -> list[list[tuple[int, int, int]]]:
    return [
        [(price, side.levels[price][0], side.levels[price][1]) for price in side.best(0)]
        for side in (mirror.bids, mirror.asks)
    ]


@pytest.mark.parametrize("start", [0, 150])
def test_books_and_balances_kept_from_events_equal_the_core_after_every_command(seed: int, start: int) -> None:
    chance, engine = random.Random(seed), open_exchange()
    for _ in range(start):
        apply(engine, any_command(engine, chance))
    market = engine.state.markets[0]
    mirror = BookMirror(market, engine.state.sequence)
    copies = {name: BalanceCopy(engine.state, name) for name in (*ACCOUNTS, "$fees", "new")}

    for _ in range(300):
        events = apply(engine, any_command(engine, chance))
        for event in events:
            mirror.apply(event)
        assert levels(mirror) == [list(book.levels(market.bids)), list(book.levels(market.asks))]
        for name, copy in copies.items():
            copy.apply(events, engine.state.markets)
            holder = engine.state.accounts.get(name)
            core = {asset: (own.available, own.held) for asset, own in holder.balances.items()} if holder else {}
            ours = {asset: (own.available, own.held) for asset, own in copy.balances.items()}
            assert {key: value for key, value in ours.items() if any(value)} == {
                key: value for key, value in core.items() if any(value)
            }


def test_what_changed_is_told_once_and_best_first() -> None:
    engine = open_exchange()
    mirror = BookMirror(engine.state.markets[0], engine.state.sequence)
    for side, price in ((BUY, 990), (BUY, 995), (SELL, 1_010), (SELL, 1_005)):
        for event in apply(engine, cmd.place("a", 0, side, LIMIT, 1, price, tif=GTC)):
            mirror.apply(event)

    assert mirror.take_changes() == ([995, 990], [1_005, 1_010])
    assert mirror.take_changes() == ([], [])
    assert (mirror.bids.best(1), mirror.asks.best(1)) == ([995], [1_005])


def test_another_market_s_events_change_nothing() -> None:
    engine = open_exchange()
    mirror = BookMirror(engine.state.markets[0], engine.state.sequence)
    for account, side in (("a", BUY), ("b", SELL)):
        for event in apply(engine, cmd.place(account, 1, side, LIMIT, 5, 1_000, tif=GTC)):
            mirror.apply(event)

    assert engine.result[R_ORDER_ID]
    assert (levels(mirror), mirror.changed) == ([[], []], set())


@pytest.mark.parametrize(
    ("bids", "asks", "text"),
    [
        ([], [], ""),
        ([(2, 3)], [], "2:3"),
        ([], [(2, 3)], "2:3"),
        ([(9, 1), (8, 2)], [(10, 5)], "9:1:10:5:8:2"),
    ],
)
def test_the_checksum_is_over_both_sides_in_turn(
    bids: list[tuple[int, int]], asks: list[tuple[int, int]], text: str
) -> None:
    from zlib import crc32

    assert checksum_of(bids, asks, str, str) == crc32(text.encode())


def test_money_that_comes_waits_goes_or_changes_hands_is_moved_alike() -> None:
    engine = open_exchange()
    copies = {name: BalanceCopy(engine.state, name) for name in ("a", "b")}
    steps: list[tuple[cmd.Command, list[int], list[int]]] = [
        (cmd.hold("a", 1, 500, request_id="h1"), [1], []),
        (cmd.hold("a", 1, 700, request_id="h2"), [1], []),
        (cmd.release_hold("a", "h1", request_id="r"), [1], []),
        (cmd.settle_hold("a", "h2", request_id="s"), [1], []),
        (cmd.transfer("a", "b", 1, 900, request_id="t"), [1], [1]),
        (cmd.transfer("a", "b", 1, 10**18, request_id="t2"), [], []),
        (cmd.credit("b", 0, 5, request_id="c"), [], [0]),
    ]
    for command, changed_a, changed_b in steps:
        events = apply(engine, command)
        assert [copies[name].apply(events, engine.state.markets) for name in ("a", "b")] == [changed_a, changed_b], (
            command
        )
    for name, copy in copies.items():
        for asset, own in engine.state.accounts[name].balances.items():
            assert (copy.balances[asset].available, copy.balances[asset].held) == (own.available, own.held)

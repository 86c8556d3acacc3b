"""Reading the recorded flow, and the comparison: pure functions."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from pincex_client.models import Book, Level
from pincex_client.replay.compare import compare_book, compare_fills
from pincex_client.replay.flow import (
    FlowBook,
    FlowCommand,
    FlowError,
    FlowFill,
    FlowLevel,
    funds_needed,
    lot_of,
    read_book,
    read_commands,
    read_fills,
    step_of,
    tick_of,
)
from tests.unit.client.matcher import Matcher

HEADER = "seq,ts_ns,kind,order_id,side,price,quantity,tif\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def to_file(text: str) -> Path:
        file = tmp_path / "flow.csv"
        file.write_text(text)
        return file

    return to_file


def run_matcher(commands: list[FlowCommand]) -> tuple[list[FlowFill], Matcher]:
    """What an independent matcher makes of the commands."""
    matcher = Matcher()
    fills = []
    for command in commands:
        price, quantity = Decimal(command.price), Decimal(command.quantity)
        made = []
        match command.kind:
            case "SEED" | "NEW":
                made = matcher.place(command.order_id, command.side, price, quantity, command.tif)
            case "CANCEL":
                assert matcher.cancel(command.order_id) == quantity, command
            case "REDUCE":
                matcher.reduce(command.order_id, quantity)
            case "REPLACE":
                made = matcher.replace(command.order_id, price, quantity)
        fills += [FlowFill(command.seq, *one) for one in made]
    return fills, matcher


def book_of(matcher: Matcher) -> Book:
    def side(name: str) -> tuple[Level, ...]:
        return tuple(Level(price, *matcher.level(name, price)) for price in matcher.prices(name)[:20])

    counts = {name: sum(order.side == name for order in matcher.orders.values()) for name in ("BUY", "SELL")}
    return Book(
        "ES",
        1,
        side("BUY"),
        side("SELL"),
        0,
        "OPEN",
        counts["BUY"],
        counts["SELL"],
        len(matcher.keys["BUY"]),
        len(matcher.keys["SELL"]),
        matcher.total("BUY"),
        matcher.total("SELL"),
    )


def test_an_independent_matcher_makes_the_recorded_fills_and_book(recorded_flow: Path) -> None:
    commands = read_commands(recorded_flow / "es-part-a.commands.csv")
    expected = read_fills(recorded_flow / "es-part-a.fills.csv")
    fills, matcher = run_matcher(commands)
    assert (len(commands), len(expected)) == (32_060, 2_872)
    assert compare_fills(expected, fills) == []
    assert compare_book(read_book(recorded_flow / "es-part-a.book.json"), book_of(matcher)) == []
    assert (tick_of(commands), lot_of(commands)) == (Decimal("0.25"), Decimal(1))


def test_a_fill_that_was_not_recorded_a_missing_one_and_a_changed_one_are_each_named(recorded_flow: Path) -> None:
    expected = read_fills(recorded_flow / "es-part-a.fills.csv")
    actual = [expected[0], replace(expected[1], quantity=Decimal(9)), *expected[3:]]
    actual.append(FlowFill(99_999, "1", "2", Decimal(1), Decimal(1)))
    found = compare_fills(expected, actual)
    assert len(found) == 3
    assert str(found[0]) == (
        "fill at command 8836, fill 1: expected 6412777265521 x 6412777265270 2 @ 4800.25, "
        "got 6412777265521 x 6412777265270 9 @ 4800.25"
    )
    assert found[1].actual == "no fill"
    assert found[2].expected == "no fill"


def test_book_differences_name_levels_and_totals() -> None:
    expected = FlowBook(
        (FlowLevel(Decimal("4809.75"), Decimal(134), 10),),
        (),
        {"order_count": Decimal(10), "buy_quantity": Decimal(134)},
    )
    actual = Book(
        "ES", 1, (Level(Decimal("4809.75"), Decimal(134), 9),), (), 0, "OPEN", 9, 0, 1, 0, Decimal(134), Decimal(0)
    )
    assert [str(each) for each in compare_book(expected, actual)] == [
        "book at bid level 1: expected 134 @ 4809.75 in 10 orders, got 134 @ 4809.75 in 9 orders",
        "book at order_count: expected 10, got 9",
    ]


@pytest.mark.parametrize(
    ("amounts", "step"),
    [
        (["4799.00", "4799.25", "4800.50"], "0.25"),
        (["192.53", "192.54"], "0.01"),
        (["100", "300"], "100"),
        (["1", "2", "5"], "1"),
        (["0.000100", "0.0003"], "0.0001"),
    ],
)
def test_tick_and_lot_follow_from_the_data(amounts: list[str], step: str) -> None:
    assert step_of(amounts) == Decimal(step)


def test_funds_cover_every_order_as_if_nothing_came_back(write: Callable[[str], Path]) -> None:
    flow = read_commands(
        write(
            HEADER
            + "1,0,SEED,1,BUY,10.50,2,GTC\n2,0,NEW,2,SELL,11,3,IOC\n3,0,REPLACE,1,BUY,10.75,4,\n4,0,CANCEL,1,BUY,10.75,4,\n"
        )
    )
    assert funds_needed(flow) == (Decimal(3), Decimal("64.00"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1,0,SWAP,1,BUY,1,1,GTC", "kind 'SWAP'"),
        ("1,0,NEW,1,HOLD,1,1,GTC", "side 'HOLD'"),
        ("1,0,NEW,1,BUY,1,0,GTC", "quantity '0'"),
        ("1,0,NEW,1,BUY,one,1,GTC", "'one' is no number"),
        ("1,0,NEW,1,BUY,NaN,1,GTC", "'NaN' is no number"),
        ("x,0,NEW,1,BUY,1,1,GTC", "'x' is no whole number"),
        ("1,0,NEW,1,BUY,1,1,DAY", "tif 'DAY'"),
        ("1,0,CANCEL,7,BUY,1,1,", "never placed"),
        ("1,0,NEW,1,BUY,1", "expected 8 fields"),
        ("1,0,NEW,1,BUY,1,1,GTC,more", "expected 8 fields"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(write: Callable[[str], Path], row: str, says: str) -> None:
    with pytest.raises(FlowError, match=says) as caught:
        read_commands(write(HEADER + row + "\n"))
    assert "line 2" in str(caught.value)


def test_an_order_id_used_twice_is_refused(write: Callable[[str], Path]) -> None:
    with pytest.raises(FlowError, match=r"line 3: order id 1 is used twice"):
        read_commands(write(HEADER + "1,0,NEW,1,BUY,1,1,GTC\n2,0,NEW,1,BUY,1,1,GTC\n"))


def test_files_that_are_none_are_refused(write: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(FlowError, match="no column kind"):
        read_commands(write("seq,ts_ns\n1,2\n"))
    with pytest.raises(FlowError, match="no commands"):
        read_commands(write(HEADER))
    with pytest.raises(FlowError, match="cannot be read"):
        read_commands(tmp_path / "nowhere.csv")
    with pytest.raises(FlowError, match="not a book"):
        read_book(write(json.dumps({"bids": []})))

"""The engine makes the very fills that a real venue made of the same orders, and the same book."""

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core import events as ev
from exchange.trading.core.book import levels
from exchange.trading.core.engine import Engine
from exchange.trading.core.invariants import check_market, check_money

pytestmark = pytest.mark.core

TICK = Decimal("0.25")
OWNER = "venue"
TIFS = {"GTC": c.GTC, "IOC": c.IOC}
SIDES = {"BUY": c.BUY, "SELL": c.SELL}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="ascii", newline="") as file:
        return list(csv.DictReader(file))


def ticks(price: str) -> int:
    count = Decimal(price) / TICK
    assert count == int(count)
    return int(count)


class Replay:
    """Plays rows of the flow; `fills` are those that the engine made, as (row, taker, maker, ticks, lots)."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.ids: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.fills: list[tuple[str, str, str, int, int]] = []
        self.refused: list[tuple[str, int]] = []
        # ESH4: 0.25 a tick, one contract a lot; nothing in the way of the flow.
        for command in (
            cmd.create_asset("operator", "ES", 0),
            cmd.create_asset("operator", "USD", 2),
            cmd.create_market("operator", ("ESH4", 0, 1, 25, 2, 1, 1, 0, 0, 0, 0, 0, 0, c.STP_NONE, 0)),
            cmd.credit(OWNER, 0, 10**12, request_id="es"),
            cmd.credit(OWNER, 1, 10**15, request_id="usd"),
            cmd.set_account_limits("operator", OWNER, 0),
        ):
            self.apply("", 0, command)

    def apply(self, row: str, time_ns: int, command: cmd.Command) -> None:
        events = self.engine.apply(self.engine.state.sequence + 1, time_ns, command)
        if self.engine.result[ev.R_REASON] != 0:
            self.refused.append((row, self.engine.result[ev.R_REASON]))
        for event in events:
            if event[ev.E_KIND] == ev.TRADE:
                taker, maker = self.names[event[ev.T_TAKER_ORDER]], self.names[event[ev.T_MAKER_ORDER]]
                self.fills.append((row, taker, maker, event[ev.T_PRICE], event[ev.T_LOTS]))

    def play(self, row: dict[str, str]) -> None:
        name, lots = row["order_id"], int(row["quantity"])
        if row["kind"] in ("SEED", "NEW"):
            self.ids[name] = self.engine.state.sequence + 1
            self.names[self.ids[name]] = name
            tif = TIFS[row["tif"]]
            command = cmd.place(OWNER, 0, SIDES[row["side"]], c.LIMIT, lots, ticks(row["price"]), tif=tif)
        elif row["kind"] == "CANCEL":
            assert self.engine.state.orders[self.ids[name]].lots_open == lots, f"row {row['seq']}"
            command = cmd.cancel(OWNER, order_id=self.ids[name])
        elif row["kind"] == "REDUCE":
            command = cmd.reduce(OWNER, lots, order_id=self.ids[name])
        else:
            assert row["kind"] == "REPLACE"
            command = cmd.replace(OWNER, lots, ticks(row["price"]), order_id=self.ids[name])
        self.apply(row["seq"], int(row["ts_ns"]), command)


@pytest.fixture(scope="module")
def replay(recorded_flow: Path) -> Replay:
    replay = Replay()
    for row in read(recorded_flow / "es-part-a.commands.csv"):
        replay.play(row)
    return replay


def test_all_2872_fills_are_the_venues_in_its_order(recorded_flow: Path, replay: Replay) -> None:
    expected = [
        (row["seq"], row["aggressor_order_id"], row["resting_order_id"], ticks(row["price"]), int(row["quantity"]))
        for row in read(recorded_flow / "es-part-a.fills.csv")
    ]
    assert len(expected) == 2_872
    assert replay.fills == expected
    assert replay.refused == []


def test_the_book_after_the_flow_is_the_venues(recorded_flow: Path, replay: Replay) -> None:
    book: dict[str, Any] = json.loads((recorded_flow / "es-part-a.book.json").read_text(encoding="ascii"))
    market = replay.engine.state.markets[0]
    for side, name in ((market.bids, "bids"), (market.asks, "asks")):
        expected = [(ticks(level["price"]), level["quantity"], level["orders"]) for level in book[name]]
        assert levels(side, len(expected)) == expected
        assert len(expected) == 20
    assert (market.bids.orders, market.asks.orders) == (book["buy_orders"], book["sell_orders"])
    assert (len(market.bids.keys), len(market.asks.keys)) == (book["buy_levels"], book["sell_levels"])
    assert (market.bids.lots, market.asks.lots) == (book["buy_quantity"], book["sell_quantity"])
    assert replay.engine.state.time_ns == book["last_ts_ns"]


def test_the_exchange_is_sound_after_the_flow(replay: Replay) -> None:
    state = replay.engine.state
    assert [finding for finding in check_money(state) + check_market(state, state.markets[0]) if not finding[1]] == []


def test_a_snapshot_of_the_real_book_is_the_same_book(replay: Replay) -> None:
    assert Engine.restore(replay.engine.snapshot()).state_hash() == replay.engine.state_hash()

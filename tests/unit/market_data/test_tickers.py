"""A ticker is the trades of 24 hours, to the second, whenever it is looked at."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.market_data.candles import NANOSECONDS, Trade, bars_of
from exchange.market_data.tickers import NOTHING, WINDOW_S, TickerWindow
from tests.unit.market_data.histories import MIDNIGHT, batches, naive_summary, trade


@settings(max_examples=60, deadline=None)
@given(batches(("BTCUSD",)), st.lists(st.integers(0, 2 * WINDOW_S), max_size=3))
def test_a_ticker_is_the_trades_of_its_24_hours(history: list[list[Trade]], later: list[int]) -> None:
    window = TickerWindow()
    trades: list[Trade] = []
    second = MIDNIGHT
    for batch in history:
        trades += batch
        for bar in bars_of(batch)["BTCUSD"]:
            window.add(bar)
        second = batch[-1].time_ns // NANOSECONDS
        assert window.at(second) == naive_summary(trades, "BTCUSD", second)
    for step in later:
        second += step
        assert window.at(second) == naive_summary(trades, "BTCUSD", second)


@settings(max_examples=40, deadline=None)
@given(batches(("BTCUSD",)), st.integers(0, WINDOW_S))
def test_a_window_that_is_begun_anew_is_the_same(history: list[list[Trade]], later: int) -> None:
    trades = [one for batch in history for one in batch]
    second = trades[-1].time_ns // NANOSECONDS
    window = TickerWindow()
    bars = bars_of(trades)["BTCUSD"]
    before = [bar for bar in bars if bar.start_s <= second - WINDOW_S]
    if before:
        window.begin(before[-1])
    for bar in bars[len(before) :]:
        window.add(bar)
    assert window.at(second + later) == naive_summary(trades, "BTCUSD", second + later)


def test_nothing_is_known_before_the_first_trade() -> None:
    assert TickerWindow().at(MIDNIGHT) == NOTHING
    assert NOTHING.price_change is None


def test_a_trade_leaves_after_exactly_24_hours_and_its_price_stays() -> None:
    window = TickerWindow()
    for bar in bars_of([trade("BTCUSD", MIDNIGHT * NANOSECONDS + 1, 7, "10.50", "0.5")])["BTCUSD"]:
        window.add(bar)
    inside = window.at(MIDNIGHT + WINDOW_S - 1)
    assert (inside.volume, inside.trade_count) == (Decimal("0.5"), 1)
    outside = window.at(MIDNIGHT + WINDOW_S)
    assert (outside.volume, outside.trade_count, outside.sequence) == (Decimal("0.0"), 0, 7)
    assert outside.open_price == outside.high_price == outside.low_price == outside.last_price == Decimal("10.50")
    assert outside.price_change == 0

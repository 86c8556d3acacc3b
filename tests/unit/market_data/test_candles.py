"""Candles are the trades of their interval, however those arrived, and are told closed once and for good."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings

from exchange.market_data.candles import (
    INTERVALS,
    KEPT_CLOSED,
    NANOSECONDS,
    Bar,
    Candle,
    CandleBuilder,
    TimeWentBack,
    Trade,
    bars_of,
)
from tests.unit.market_data.histories import MIDNIGHT, batches, naive_bars, trade


def built(history: list[list[Trade]]) -> dict[tuple[str, int], list[Candle]]:
    """Everything that the builders told, by market and interval."""
    builders: dict[str, CandleBuilder] = {}
    told: dict[tuple[str, int], list[Candle]] = {}
    for batch in history:
        found: list[Candle] = []
        for symbol, bars in bars_of(batch).items():
            found += builders.setdefault(symbol, CandleBuilder(symbol)).take(bars)
        for builder in builders.values():
            found += builder.close(batch[-1].time_ns)
        for candle in found:
            told.setdefault((candle.symbol, candle.length_s), []).append(candle)
    return told


@settings(max_examples=50, deadline=None)
@given(batches())
def test_candles_are_the_trades_of_their_interval(history: list[list[Trade]]) -> None:
    trades = [one for batch in history for one in batch]
    told = built(history)
    for symbol in {one.symbol for one in trades}:
        for length_s in INTERVALS.values():
            newest: dict[int, Bar] = {candle.bar.start_s: candle.bar for candle in told[symbol, length_s]}
            assert list(newest.values()) == naive_bars(trades, symbol, length_s)


@settings(max_examples=50, deadline=None)
@given(batches())
def test_a_candle_is_told_closed_once_before_the_next_and_never_again(history: list[list[Trade]]) -> None:
    for candles in built(history).values():
        starts = [candle.bar.start_s for candle in candles]
        assert starts == sorted(starts)
        for start in set(starts):
            flags = [candle.closed for candle in candles if candle.bar.start_s == start]
            # The newest may still be open.
            assert flags.count(True) == (0 if start == starts[-1] and not flags[-1] else 1)
            assert not any(flags[:-1])


def test_what_was_told_does_not_change_afterwards() -> None:
    builder = CandleBuilder("BTCUSD")
    first = trade("BTCUSD", MIDNIGHT * NANOSECONDS, 1, "10.00", "0.5")
    told = builder.take(bars_of([first])["BTCUSD"])
    before = [candle.bar.volume for candle in told]
    builder.take(bars_of([first._replace(sequence=2)])["BTCUSD"])
    assert [candle.bar.volume for candle in told] == before == [Decimal("0.5")] * len(INTERVALS)
    newest = builder.newest(60)
    assert newest is not None
    assert (newest.bar.volume, newest.bar.sequence, newest.closed) == (Decimal("1.0"), 2, False)


def test_an_interval_ends_before_its_last_nanosecond_is_over() -> None:
    builder = CandleBuilder("BTCUSD")
    builder.take(bars_of([trade("BTCUSD", MIDNIGHT * NANOSECONDS, 1, "10.00", "0.5")])["BTCUSD"])
    assert builder.close((MIDNIGHT + 1) * NANOSECONDS - 1) == []
    assert [candle.length_s for candle in builder.close((MIDNIGHT + 1) * NANOSECONDS)] == [1]
    assert builder.close((MIDNIGHT + 2) * NANOSECONDS) == [], "told once"
    assert [candle.length_s for candle in builder.close((MIDNIGHT + 300) * NANOSECONDS)] == [60, 300]


def test_a_trade_for_a_closed_candle_stops_everything() -> None:
    builder = CandleBuilder("BTCUSD")
    first = trade("BTCUSD", MIDNIGHT * NANOSECONDS, 1, "10.00", "0.5")
    bars = bars_of([first])["BTCUSD"]
    builder.take(bars)
    builder.close((MIDNIGHT + 1) * NANOSECONDS)
    with pytest.raises(TimeWentBack, match="closed candle"):
        builder.take(bars)
    with pytest.raises(TimeWentBack, match="older than the newest"):
        builder.take(bars_of([first._replace(time_ns=first.time_ns - 1)])["BTCUSD"])
    with pytest.raises(TimeWentBack, match="older than the trade before"):
        bars_of([first, first._replace(time_ns=first.time_ns - 1)])


def test_sums_are_exact_beyond_what_a_float_or_a_default_decimal_holds() -> None:
    builder = CandleBuilder("BTCUSD")
    huge, tiny = "90000000000000000000000000.000000000000", "0.000000000001"
    for sequence, quantity in enumerate((huge, tiny, huge), start=1):
        builder.take(bars_of([trade("BTCUSD", MIDNIGHT * NANOSECONDS, sequence, "1", quantity)])["BTCUSD"])
    newest = builder.newest(1)
    assert newest is not None
    assert newest.bar.volume == Decimal("180000000000000000000000000.000000000001")


@settings(max_examples=50, deadline=None)
@given(batches(("BTCUSD",)))
def test_what_is_missed_is_what_was_told_later(history: list[list[Trade]]) -> None:
    """Who has all that was told up to a sequence, and takes what is missed, has the newest of each candle."""
    builder = CandleBuilder("BTCUSD")
    told: list[tuple[int, Candle]] = []
    for batch in history:
        found = [*builder.take(bars_of(batch)["BTCUSD"]), *builder.close(batch[-1].time_ns)]
        told += [(batch[-1].sequence, candle) for candle in found if candle.length_s == 60]
    newest = {candle.bar.start_s: candle for _, candle in told}
    for place, _ in [(0, None), *told]:
        missed = builder.since(60, place)
        assert missed is not None
        seen = {candle.bar.start_s: candle for sequence, candle in told if sequence <= place}
        assert seen | {candle.bar.start_s: candle for candle in missed} == newest
        assert [candle.bar.start_s for candle in missed] == sorted({candle.bar.start_s for candle in missed})


def test_what_lies_too_far_back_is_said_to_be_missing() -> None:
    builder = CandleBuilder("BTCUSD")
    for number in range(1, KEPT_CLOSED + 3):
        time_ns = (MIDNIGHT + number) * NANOSECONDS
        builder.close(time_ns)
        builder.take(bars_of([trade("BTCUSD", time_ns, number, "10.00", "0.5")])["BTCUSD"])
    assert builder.since(1, 1) is None
    missed = builder.since(1, 2)
    assert missed is not None
    assert [(candle.bar.sequence, candle.closed) for candle in missed] == [
        *((number, True) for number in range(2, KEPT_CLOSED + 2)),
        (KEPT_CLOSED + 2, False),
    ]
    later = CandleBuilder("BTCUSD")
    later.begin(1, [candle.bar for candle in missed], time_ns=(MIDNIGHT + KEPT_CLOSED + 2) * NANOSECONDS)
    assert later.since(1, 2) == missed
    assert later.since(1, 1) is None

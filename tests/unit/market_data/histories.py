"""Random histories of trades, and what becomes of them computed in the plainest way."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from exchange.market_data.candles import NANOSECONDS, Bar, Trade
from exchange.market_data.tickers import NOTHING, WINDOW_S, Summary

if TYPE_CHECKING:
    from collections.abc import Sequence

# A moment at which a day, and so each interval, begins.
MIDNIGHT = 20_000 * 86_400
# Gaps between trades that matter: none, within a second, over the ends of intervals and of the window.
_GAPS = st.sampled_from(
    [
        0,
        1,
        400_000_000,
        999_999_999,
        *(length * NANOSECONDS for length in (1, 59, 60, 899, 3_600, 43_200, 86_399, 86_400)),
    ]
)


def trade(symbol: str, time_ns: int, sequence: int, price: str, quantity: str) -> Trade:
    value = Decimal(price), Decimal(quantity)
    return Trade(symbol, time_ns, sequence, *value, value[0] * value[1])


@st.composite
def batches(draw: st.DrawFn, symbols: Sequence[str] = ("BTCUSD", "ETHUSD")) -> list[list[Trade]]:
    """Trades in the engine's order, cut into batches anywhere."""
    found: list[list[Trade]] = []
    time_ns, sequence = MIDNIGHT * NANOSECONDS, 0
    for size in draw(st.lists(st.integers(1, 6), min_size=1, max_size=8)):
        batch = []
        for _ in range(size):
            time_ns += draw(_GAPS)
            sequence += draw(st.integers(0, 3)) or 1
            price = f"{draw(st.integers(1, 30))}.{draw(st.integers(0, 99)):02}"
            quantity = f"0.{draw(st.integers(1, 99_999)):05}"
            batch.append(trade(draw(st.sampled_from(symbols)), time_ns, sequence, price, quantity))
        found.append(batch)
    return found


def naive_bars(trades: Sequence[Trade], symbol: str, length_s: int) -> list[Bar]:
    """All candles of an interval, oldest first."""
    groups: dict[int, list[Trade]] = {}
    for one in trades:
        if one.symbol == symbol:
            second = one.time_ns // NANOSECONDS
            groups.setdefault(second // length_s * length_s, []).append(one)
    return [_bar(start, group) for start, group in sorted(groups.items())]


def _bar(start_s: int, group: list[Trade]) -> Bar:
    prices = [one.price for one in group]
    return Bar(
        start_s,
        prices[0],
        max(prices),
        min(prices),
        prices[-1],
        sum((one.quantity for one in group), Decimal(0)),
        sum((one.notional for one in group), Decimal(0)),
        len(group),
        group[-1].sequence,
        group[-1].quantity,
    )


def naive_summary(trades: Sequence[Trade], symbol: str, second: int) -> Summary:
    """The 24 hours that end with a second."""
    own = [one for one in trades if one.symbol == symbol]
    if not own:
        return NOTHING
    inside = [one for one in own if one.time_ns // NANOSECONDS > second - WINDOW_S]
    prices = [one.price for one in inside] or [own[-1].price]
    return Summary(
        own[-1].price,
        own[-1].quantity,
        prices[0],
        max(prices),
        min(prices),
        sum((one.quantity for one in inside), Decimal(0)),
        sum((one.notional for one in inside), Decimal(0)),
        len(inside),
        own[-1].sequence,
    )

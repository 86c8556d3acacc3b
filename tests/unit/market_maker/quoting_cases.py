"""Markets, settings and situations for Hypothesis: anything that an exchange and an operator may come up with."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from hypothesis import strategies as st

from exchange.market_maker.orders import OwnOrder
from exchange.market_maker.quoting import BUY, SELL, Outside
from exchange.market_maker.rules import MarketRules, MarketSettings


def rules(**changes: object) -> MarketRules:
    """BTCUSD of the development exchange, at 50,000."""
    known: dict[str, object] = {
        "symbol": "BTCUSD",
        "base_asset": "BTC",
        "quote_asset": "USD",
        "tick": Decimal("0.01"),
        "lot": Decimal("0.00001"),
        "is_open": True,
        "takes_cancels": True,
        "min_lots": 1,
        "max_lots": 0,
        "min_notional": Decimal(1),
        "fee_ppm": 2_000,
        "low_ticks": 2_500_000,
        "high_ticks": 7_500_000,
        "last_price": Decimal(50_000),
    }
    return MarketRules(**{**known, **changes})  # type: ignore[arg-type]


def settings(**changes: object) -> MarketSettings:
    """Five levels of 0.2 between 0.1% and 1%."""
    known: dict[str, object] = {
        "symbol": "BTCUSD",
        "enabled": True,
        "min_spread": Decimal("0.001"),
        "max_spread": Decimal("0.01"),
        "levels": 5,
        "level_quantity": Decimal("0.2"),
        "max_inventory": Decimal(4),
        "max_daily_loss": Decimal(10_000),
    }
    return MarketSettings(**{**known, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """What `quotes` is asked."""

    rules: MarketRules
    settings: MarketSettings
    reference: Decimal
    movement: Fraction
    inventory: Decimal
    outside: Outside

    @property
    def reference_ticks(self) -> Fraction:
        return Fraction(self.reference) / Fraction(self.rules.tick)


fractions = st.decimals(0, 1, places=6)
prices = st.decimals(Decimal("0.00001"), Decimal(200_000), places=5)
ticks = st.integers(1, 30_000_000)


@st.composite
def cases(draw: st.DrawFn, *, with_others: bool = True) -> Case:
    low, high = sorted((draw(fractions), draw(fractions)))
    tick = draw(st.sampled_from([Decimal("0.01"), Decimal("0.5"), Decimal("0.00001"), Decimal(1)]))
    lot = draw(st.sampled_from([Decimal("0.00001"), Decimal("0.1"), Decimal(1)]))
    low_ticks = draw(st.integers(1, 10_000))
    market = rules(
        tick=tick,
        lot=lot,
        min_lots=draw(st.integers(0, 50)),
        max_lots=draw(st.sampled_from([0, 0, 100, 10_000])),
        min_notional=draw(st.sampled_from([Decimal(0), Decimal(1), Decimal(100)])),
        fee_ppm=draw(st.integers(0, 100_000)),
        low_ticks=low_ticks,
        high_ticks=low_ticks + draw(st.integers(0, 40_000_000)),
    )
    wanted = settings(
        min_spread=low,
        max_spread=high,
        levels=draw(st.integers(1, 20)),
        level_quantity=lot * draw(st.integers(1, 1_000)),
        max_inventory=draw(st.decimals(0, 1_000, places=5)),
    )
    others = st.none() | ticks
    bid, ask = (draw(others), draw(others)) if with_others else (None, None)
    if bid is not None and ask is not None and bid >= ask:
        bid, ask = ask, bid + 1
    return Case(
        market,
        wanted,
        draw(prices),
        Fraction(draw(st.decimals(0, 2, places=4))),
        draw(st.decimals(-1_500, 1_500, places=5)),
        Outside(bid, ask),
    )


@st.composite
def own_orders(draw: st.DrawFn, around: int) -> list[OwnOrder]:
    """Any orders of ours near a price."""
    count = draw(st.integers(0, 12))
    return [
        OwnOrder(
            str(number),
            "BTCUSD",
            draw(st.sampled_from([BUY, SELL])),
            max(around + draw(st.integers(-40, 40)), 0),
            draw(st.integers(1, 30)),
        )
        for number in range(count)
    ]

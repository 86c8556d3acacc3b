"""docs/LIMITS.md: the tiers are those of the code."""

from __future__ import annotations

from exchange.trading.core.model import State
from exchange.trading.limits.tiers import TIERS
from tests.unit.docs.tables import document, table


def number(text: str) -> int:
    return 0 if text == "no limit" else int(text.replace(",", ""))


def test_each_tier_is_documented_with_its_limits() -> None:
    _, *rows = table(document("docs/LIMITS.md"), "tiers")
    assert [row[0] for row in rows] == list(TIERS)
    for name, per_second, burst, open_orders in rows:
        tier = TIERS[name]
        assert (number(per_second), number(burst)) == (tier.orders_per_second, tier.orders_burst)
        if tier.max_open_orders:
            assert number(open_orders) == tier.max_open_orders
        else:
            assert open_orders == f"{State().default_max_open_orders:,}, the engine's own"

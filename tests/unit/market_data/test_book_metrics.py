"""Series of market data's books and streams are those that docs/METRICS.md lists."""

from __future__ import annotations

from typing import Any, cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from exchange.market_data.metrics import MarketDataMetrics
from exchange.market_data.service.streams import Streams
from exchange.runtime.clock import SystemClock
from exchange.runtime.drain import Drain
from tests.unit.docs.tables import document, table
from tests.unit.market_data.engine_history import EngineHistory
from tests.unit.market_data.streams_rig import Instance, Reader, settle


async def test_every_series_is_documented_and_tells_what_is_the_case() -> None:
    history = EngineHistory()
    instance = Instance(history.snapshot())
    follower = cast("Any", instance.follower)
    follower.head_sequence, follower.lag_s, follower.restarts = instance.follower.sequence + 3, 0.5, 1
    streams = Streams(follower, SystemClock(), Drain(), instance.counts)
    streams.add(*instance.kinds)
    reader = Reader(instance, "levels 10 0")
    await settle()
    instance.counts.slow_closed["trades"] += 1
    streams.heartbeat()
    history.wish((10, 0, 0, 4_000, 5, 1))
    instance.take(history.batch())
    registry = CollectorRegistry()
    MarketDataMetrics(registry, follower, instance.books, streams)

    families = {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}
    told = {name + ("_total" if family.type == "counter" else ""): family.type for name, family in families.items()}
    rows = table(document("docs/METRICS.md"), "market data metrics")[1:]
    assert told == {row[0].strip("`"): row[1] for row in rows}
    values = {
        (sample.name, sample.labels.get("kind", "")): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["pincex_market_data_lag_sequences", ""] == 2
    assert values["pincex_market_data_subscribers", "book"] == 1
    assert values["pincex_market_data_messages_total", "book"] == 1
    assert values["pincex_market_data_slow_closed_total", "trades"] == 1
    await reader.stop()

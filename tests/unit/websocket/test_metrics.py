"""The series of the WebSocket process are those of docs/METRICS.md, and the limits those of docs/WEBSOCKET.md."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from exchange.runtime.config import Environment
from exchange.websocket.config import Config
from exchange.websocket.counts import Counts
from exchange.websocket.limits import Limits
from exchange.websocket.metrics import WebSocketMetrics
from tests.unit.docs.tables import document, table


class FakeServer:
    """A server with something in every count."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.clients: dict[str, Any] = {}
        self.subscriptions = {"book": 3}
        self.counts.queue_high_water = 7
        for found in (self.counts.closed, self.counts.refused, self.counts.interrupted):
            found["x"] = 1


def test_the_series_are_those_of_the_document() -> None:
    registry = CollectorRegistry()
    server: Any = FakeServer()
    WebSocketMetrics(registry, server, lambda: 5)
    server.counts.queue_high_water = 7
    families = list(registry.collect())
    found = {
        (f"{family.name}_total" if family.type == "counter" else family.name): (
            family.type,
            ", ".join(sorted({label for sample in family.samples for label in sample.labels})),
        )
        for family in families
    }
    rows = table(document("docs/METRICS.md"), "websocket metrics")[1:]
    assert found == {name.strip("`"): (kind, labels) for name, kind, labels, _ in rows}
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert values["pincex_websocket_queue_high_water"] == 7
    assert values["pincex_websocket_upstream_streams"] == 5
    assert registry.get_sample_value("pincex_websocket_queue_high_water") == 0, "it begins anew when it was read"


def test_the_limits_are_those_of_the_document() -> None:
    limits = Limits()
    rows = {what: limit for what, limit, _, _ in table(document("docs/WEBSOCKET.md"), "websocket limits")[1:]}
    found = {
        "bytes of a message of a client": f"{limits.message_bytes:,}",
        "messages of a client in a second, and at once": f"{limits.messages_per_second:g}, {limits.messages_burst:g}",
        "subscriptions of a connection": str(limits.subscriptions),
        "order requests that wait": str(limits.waiting_orders),
        "connections of an instance": f"{limits.connections:,}",
        "of them from one address": f"{limits.connections_of_address:,}",
        "public streams of an instance": f"{limits.feeds:,}",
    }
    assert {what: limit for what, limit in rows.items() if what in found} == found
    text = document("docs/WEBSOCKET.md")
    assert f"pings every {limits.ping_interval_s:g} s" in text
    assert f"{limits.queue_messages:,} messages or {limits.queue_bytes >> 20} MiB" in text


def test_settings_are_read_with_the_usual_limits() -> None:
    base = {"PINCEX_INTERNAL_TARGET": "127.0.0.1:1", "PINCEX_EDGE_TARGET": "127.0.0.1:2"}
    assert Config.read(Environment(base)).limits == Limits()
    changed = Config.read(Environment({**base, "PINCEX_WS_MESSAGES_PER_SECOND": "10", "PINCEX_WS_IDLE_SECONDS": "5"}))
    assert (changed.limits.messages_burst, changed.limits.idle_s) == (30.0, 5.0)

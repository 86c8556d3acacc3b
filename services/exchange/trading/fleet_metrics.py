"""Metrics of all instances in one text, each series with its instance, and those of the edge in front of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
from prometheus_client import CollectorRegistry

from exchange.runtime.edge_metrics import STATS_QUERY, edge_metrics
from exchange.runtime.exposition import merged
from exchange.runtime.metrics import render
from exchange.trading.replication.messages import ReplicaInfo

FETCH_TIMEOUT_S = 2.0


class FleetMetrics:
    """Gathers them when asked. `others` are the instances beside this one; one that does not answer within FETCH_TIMEOUT_S is
    left out, and `engine_answering` says so.
    """

    def __init__(
        self,
        instance: str,
        registry: CollectorRegistry,
        edge_stats_url: str,
        others: Callable[[], list[ReplicaInfo]],
    ) -> None:
        self._instance = instance
        self._registry = registry
        self._edge_stats_url = edge_stats_url
        self._others = others

    async def text(self) -> bytes:
        """Prometheus text."""
        others = self._others()
        edge_url = f"{self._edge_stats_url}?{STATS_QUERY}" if self._edge_stats_url else ""
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            edge, *texts = await asyncio.gather(
                *(_fetch(client, url) for url in (edge_url, *(other.metrics_url for other in others)))
            )
        found = {self._instance: render(self._registry).decode()}
        found.update((other.instance, text) for other, text in zip(others, texts, strict=True))
        answering = merged({instance: _answering(bool(text)) for instance, text in found.items()})
        return (merged(found) + answering + edge_metrics(edge)).encode()


def _answering(answers: bool) -> str:  # noqa: FBT001 - it is the value
    return (
        "# HELP engine_answering 1 where the instance answered this scrape, 0 where its other series are left out.\n"
        "# TYPE engine_answering gauge\n"
        f"engine_answering {int(answers)}\n"
    )


async def _fetch(client: aiohttp.ClientSession, url: str) -> str:
    """The text at a URL, "" for none or no answer."""
    if not url:
        return ""
    try:
        async with client.get(url, raise_for_status=True) as response:
            return await response.text()
    except (aiohttp.ClientError, TimeoutError):
        return ""

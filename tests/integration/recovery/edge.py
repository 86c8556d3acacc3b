"""A whole exchange behind its edge, as `Load` and `prove` want it; and what a test asks of its engines."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from pincex_client import ExchangeClient, RetryPolicy
from tests.edge_http import call
from tests.integration.journal.waiting import until
from tests.stack_fixture import ExchangeStack

ENGINE = "trading-engine"
COMPARE_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Urls:
    """As `tests.postgres_fixture.Database` names it."""

    trading_url: str


class AtTheEdge:
    """What `Load` and `prove` want of an engine, for those behind Envoy."""

    def __init__(self, stack: ExchangeStack) -> None:
        assert stack.database_url is not None
        self.database = Urls(stack.database_url)
        self.stack = stack

    def client(self, account: str = "demo", **policy: Any) -> ExchangeClient:
        """The SDK at the edge."""
        return ExchangeClient(
            self.stack.edge_address,
            ops_target=self.stack.ops_address,
            account=account,
            policy=RetryPolicy(**{"deadline": 30.0, "max_delay": 0.2, **policy}),
        )

    async def engines(self) -> list[dict[str, Any]]:
        """The engines as `pincex status` shows them."""
        status = await asyncio.to_thread(self.stack.status)
        return [one for one in status["services"] if one["service"] == ENGINE]

    async def leader(self) -> str:
        """The name of the engine that leads, "" while none says so."""
        leading = [one["name"] for one in await self.engines() if one["role"] == "leader" and one["state"] == "ready"]
        return leading[0] if len(leading) == 1 else ""

    async def whole(self, count: int) -> bool:
        """Whether that many engines run, all ready, one of them leading."""
        engines = await self.engines()
        ready = [one for one in engines if one["state"] == "ready"]
        return len(ready) == len(engines) == count and sum(one["role"] == "leader" for one in ready) == 1

    async def until_whole(self, count: int) -> None:
        """Wait for it."""
        await until(lambda: self.whole(count), 60.0)

    async def scale(self, count: int) -> None:
        """`pincex scale trading-engine=COUNT`; returns when that many are ready."""
        done = await asyncio.to_thread(self.stack.folder.command, "scale", f"{ENGINE}={count}")
        assert done.returncode == 0, done.stdout + done.stderr

    async def compared(self, count: int) -> dict[str, Any]:
        """What `GET /admin/replicas` says, once all of `count` instances have answered. Fails where they differ."""
        found: dict[str, Any] = {}

        async def all_answer() -> bool:
            answer = await asyncio.to_thread(call, f"{self.stack.ops_url}/admin/replicas?symbol=BTCUSD")
            if answer.status != 200:
                return False
            found.update(json.loads(answer.body))
            hashes = [one["state_hash"] for one in found["replicas"]]
            return len(hashes) == count and all(hashes)

        await until(all_answer, COMPARE_DEADLINE_S)
        assert found["identical"], found
        return found

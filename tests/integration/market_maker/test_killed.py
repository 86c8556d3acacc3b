"""A market maker that is killed, or hangs, leaves no quote behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from exchange.market_maker.service.order_session import DEAD_MAN_S
from tests.integration.market_maker.market_maker_app import environment
from tests.integration.trading.engine_app import DEADLINE_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.trading.engine_app import Client, Exchange
    from tests.postgres_fixture import Database


async def count(client: Client, wanted: int) -> None:
    """Wait until so many orders are open."""
    async with asyncio.timeout(2 * DEADLINE_S):
        while len(await client.listed()) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_killed_it_leaves_no_quote_and_the_next_one_goes_on(
    exchange: Exchange, database: Database, tmp_path: Path
) -> None:
    variables = {**os.environ, **environment(exchange, database, str(tmp_path))}
    client = exchange.client("market-maker")
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "exchange.market_maker",
            env=variables,
            stdout=asyncio.subprocess.DEVNULL,
            cwd=tmp_path,
        )
        try:
            await count(client, 10)
            (session,) = exchange.engine.state.accounts["market-maker"].sessions.values()
            assert (session.cancel_on_disconnect, session.grace_ms) == (True, 0)
            # A process that hangs instead of dying: the exchange takes the orders back when nothing more is heard.
            assert session.dead_man_ms == DEAD_MAN_S * 1_000
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        await count(client, 0)

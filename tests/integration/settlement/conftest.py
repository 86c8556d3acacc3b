"""An engine and a settlement that follows it, fresh for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.settlement.settlement_app import Settlement, running_settlement
from tests.integration.trading.engine_app import Exchange, eventually, running_exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.postgres_fixture import Database


@pytest.fixture
async def exchange(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Exchange]:
    """The development exchange, in memory."""
    async with running_exchange(monkeypatch) as found:
        yield found


@pytest.fixture
async def settlement(
    monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database
) -> AsyncIterator[Settlement]:
    """One instance beside it. It has compared once, as at every start, and compares again when it is asked to."""
    async with running_settlement(monkeypatch, exchange, database) as found:
        sample = found.app.registry.get_sample_value
        compared = "pincex_settlement_reconciled_timestamp_seconds"
        await eventually(lambda: (sample(compared) or 0.0) > 0, "it has compared")
        yield found

"""An engine, a settlement and the history of market data that follow it, fresh for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.market_data.history_app import MarketHistory, running_market_history
from tests.integration.settlement.settlement_app import Settlement, running_settlement
from tests.integration.trading.engine_app import Exchange, running_exchange

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
    """Writes the trades."""
    async with running_settlement(monkeypatch, exchange, database) as found:
        yield found


@pytest.fixture
async def market_history(exchange: Exchange, database: Database) -> AsyncIterator[MarketHistory]:
    """Builds candles and tickers, and answers."""
    async with running_market_history(exchange, database) as found:
        yield found

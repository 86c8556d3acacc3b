"""An engine with a reference price, and a market maker beside it, fresh for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.market_maker.market_maker_app import (
    FakeReference,
    MarketMaker,
    exchange_with_reference,
    running_market_maker,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.trading.engine_app import Exchange
    from tests.postgres_fixture import Database


@pytest.fixture
def reference() -> FakeReference:
    """BTCUSD at 50,000, ETHUSD nowhere."""
    return FakeReference()


@pytest.fixture
async def exchange(monkeypatch: pytest.MonkeyPatch, reference: FakeReference) -> AsyncIterator[Exchange]:
    """The development exchange, in memory."""
    async with exchange_with_reference(monkeypatch, reference) as found:
        yield found


@pytest.fixture
async def maker(monkeypatch: pytest.MonkeyPatch, exchange: Exchange, database: Database) -> AsyncIterator[MarketMaker]:
    """One instance, which looks every 0.05 s."""
    async with running_market_maker(monkeypatch, exchange, database) as found:
        yield found

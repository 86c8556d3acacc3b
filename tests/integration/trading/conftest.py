"""A fresh engine for each test: starting one takes some hundredths of a second."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.trading.engine_app import Exchange, running_exchange


@pytest.fixture
async def exchange(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Exchange]:
    """The development exchange: BTCUSD and ETHUSD, `demo` and `maker` funded, in memory."""
    async with running_exchange(monkeypatch) as found:
        yield found

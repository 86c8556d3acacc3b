"""A fresh engine for each test: starting one takes some hundredths of a second."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.trading.engine_app import Exchange, behind_a_follower, running_exchange


@pytest.fixture
async def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Exchange]:
    """The development exchange: BTCUSD and ETHUSD, `demo` and `maker` funded, in memory.

    In modules marked `each_role` once more with a follower between clients and leader: nobody needs to know who leads.
    """
    async with running_exchange(monkeypatch) as found:
        if getattr(request, "param", "leader") == "leader":
            yield found
        else:
            async with behind_a_follower(monkeypatch, found) as forwarded:
                yield forwarded


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module marked `each_role` against a leader and against a follower, but for those that look into
    the leader itself.
    """
    marker = metafunc.definition.get_closest_marker
    if "exchange" in metafunc.fixturenames and marker("each_role") and not marker("leader_only"):
        metafunc.parametrize("exchange", ["leader", "follower"], indirect=True)

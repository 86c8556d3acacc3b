"""A wallet's world for each test, on one database for a file: to make one for each test would take longer than the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.wallet.world import World, world_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.postgres_fixture import Database, PostgresServer


@pytest.fixture(scope="module")
def wallet_database(postgres_server: PostgresServer) -> Iterator[Database]:
    """Migrated; tests empty its tables."""
    fresh = postgres_server.create_database()
    yield fresh
    postgres_server.drop_database(fresh.name)


@pytest.fixture
async def world(wallet_database: Database) -> AsyncIterator[World]:
    """Nothing goes wrong on its network by itself."""
    async with world_of(wallet_database) as found:
        found.clear()
        yield found

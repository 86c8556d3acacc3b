"""KYC on a database that a module's tests share: each has users of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.kyc.rig import Rig, config, running_kyc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.postgres_fixture import Database, PostgresServer


@pytest.fixture(scope="module")
def kept_database(postgres_server: PostgresServer) -> Iterator[Database]:
    kept = postgres_server.create_database()
    yield kept
    postgres_server.drop_database(kept.name)


@pytest.fixture
def screening_list(tmp_path: Path) -> Path:
    """A list with one name."""
    path = tmp_path / "list.txt"
    path.write_text("# a list\nIvan Wanted\n", encoding="utf-8")
    return path


@pytest.fixture
async def rig(kept_database: Database, screening_list: Path) -> AsyncIterator[Rig]:
    async with running_kyc(kept_database, config(screening_list)) as found:
        yield found

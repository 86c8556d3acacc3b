from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
import pytest_asyncio

from tests.integration.auth.auth_app import Service, running_auth
from tests.integration.auth.rig import Rig, running_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.postgres_fixture import Database, PostgresServer

_TABLES = (
    "users, recovery_codes, mail_codes, sub_accounts, user_sessions, refresh_tokens, failed_login_attempts, api_keys, "
    "certificates, auth_signing_keys, auth_revocations, request_nonces, request_nonce_epoch"
)


@pytest.fixture(scope="module")
def kept_database(postgres_server: PostgresServer) -> Iterator[Database]:
    """One database for a module: emptying it is ten times faster than making another."""
    kept = postgres_server.create_database()
    yield kept
    postgres_server.drop_database(kept.name)


@pytest.fixture
def database(kept_database: Database) -> Database:
    """A migrated database in which nobody has registered yet."""
    with psycopg.connect(kept_database.admin_url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {_TABLES} RESTART IDENTITY")
    return kept_database


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    """An auth service without Valkey."""
    async with running_rig(database) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A whole instance for a module's tests, each of which registers users of its own."""
    database = postgres_server.create_database()
    home: Path = tmp_path_factory.mktemp("auth-home")
    async with running_auth(database, home) as found:
        yield found
    postgres_server.drop_database(database.name)

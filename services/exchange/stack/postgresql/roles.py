"""The database, its roles and what they may do: the same for one server and for a pair."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

import asyncpg

from exchange.stack.errors import StackError
from exchange.stack.files import secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATABASE = "pincex"
ADMIN, TRADING, AUTH, REPLICATION = "admin", "trading_user", "auth_user", "replication_user"
# The admin service: reads the audit trail.
AUDIT = "audit_user"
SETTLEMENT, WALLET = "settlement_user", "wallet_user"
MARKET_DATA, MARKET_MAKER = "market_data_user", "market_maker_user"
# Has no tables: it knows its operators by the auth service's.
WEBSOCKET = "websocket_user"
# As which services log in; each sees what its migrations grant it.
SERVICES = (TRADING, AUTH, AUDIT, SETTLEMENT, WALLET, MARKET_DATA, MARKET_MAKER, WEBSOCKET)
_SERVICES = ", ".join(SERVICES)
# The database that every cluster has.
MAINTENANCE = "postgres"

_SCRAM_ITERATIONS = 4096
# What a table's migration does not grant, nobody has. Databases of earlier builds gave it all to the engine.
_DEFAULTS = f"ALTER DEFAULT PRIVILEGES FOR ROLE {ADMIN} IN SCHEMA public REVOKE ALL ON"
_GRANTS = (
    f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC",
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    f"GRANT CONNECT ON DATABASE {DATABASE} TO {_SERVICES}, {REPLICATION}",
    f"GRANT USAGE ON SCHEMA public TO {_SERVICES}",
    f"{_DEFAULTS} TABLES FROM {TRADING}",
    f"{_DEFAULTS} SEQUENCES FROM {TRADING}",
    "CREATE EXTENSION IF NOT EXISTS pg_stat_statements",
)


def password(home: Path, role: str) -> str:
    """The role's password, made at the first call and kept in the data folder's `secrets/`."""
    return secret(home / "secrets", f"postgres-{role}")


async def provision(home: Path, url: Callable[[str], str]) -> None:
    """Makes database, roles and extension, again and again with the same outcome. Raises StackError.

    `url` gives the admin's URL of a database on the server that accepts writes.
    """
    try:
        await _make_database(url(MAINTENANCE))
        await _make_roles(home, url(DATABASE))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise StackError(f"postgres could not be provisioned: {error}") from error


async def _make_database(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ADMIN}")
    finally:
        await connection.close()


async def _make_roles(home: Path, url: str) -> None:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        async with connection.transaction():
            for role in (*SERVICES, REPLICATION):
                options = "LOGIN REPLICATION" if role == REPLICATION else "LOGIN"
                if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                    await connection.execute(f"CREATE ROLE {role}")
                # The verifier, not the password: statements end up in logs and in pg_stat_statements.
                verifier = scram_verifier(password(home, role))
                attributes = f"NOSUPERUSER NOCREATEDB NOCREATEROLE {options}"
                await connection.execute(f"ALTER ROLE {role} WITH {attributes} PASSWORD '{verifier}'")
            for statement in _GRANTS:
                await connection.execute(statement)
    finally:
        await connection.close()


def scram_verifier(clear: str) -> str:
    """PostgreSQL's stored form of a SCRAM-SHA-256 password (RFC 5802, RFC 7677)."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", clear.encode(), salt, _SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64encode(hashlib.sha256(client_key).digest()).decode()
    server = base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{base64.b64encode(salt).decode()}${stored}:{server}"

"""Connections to PostgreSQL: how every service of the exchange makes them.

A DSN may name several hosts (`postgresql://u:p@a:5432,b:5432/pincex`); all are asked at once and the one
that accepts writes is taken, so a fail-over needs no new configuration, and a host that is silent delays
nobody. Sessions commit synchronously whatever the server's
default says, in UTC, under a name that an operator recognises in `pg_stat_activity`.
"""

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

# A server that answers at all answers a connection within this; reconnecting is the caller's policy.
CONNECT_TIMEOUT_S = 3.0
POOL_MIN_CONNECTIONS = 1
POOL_MAX_CONNECTIONS = 4
# Idle pool connections are closed after this, so that a fail-over does not leave stale ones behind.
POOL_IDLE_SECONDS = 60.0

# A vanished host (no RST) is noticed within about 5 s: probes after 2 s idle, 3 of them 1 s apart;
# bytes that the peer's kernel does not acknowledge for 5 s. Neither limits how long a query may run.
KEEPALIVE_IDLE_S = 2
KEEPALIVE_INTERVAL_S = 1
KEEPALIVE_PROBES = 3
UNACKNOWLEDGED_MS = 5_000

# Failures of the connection or the server, after which the outcome of a statement is unknown or the
# statement had no effect, and the same call may succeed on a new connection.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    # While passwords are rotated or a database is being restored: refused now, not for ever.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    # A migration changed a table under a prepared statement: prepared anew, it works.
    asyncpg.InvalidCachedStatementError,
    asyncpg.exceptions.TargetServerAttributeNotMatched,
    OSError,
    TimeoutError,
)

_BASE_SETTINGS: Mapping[str, str] = {
    "synchronous_commit": "on",
    "timezone": "UTC",
    "jit": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
    "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_S),
    "tcp_keepalives_count": str(KEEPALIVE_PROBES),
    "tcp_user_timeout": str(UNACKNOWLEDGED_MS),
}


def redact(dsn: str) -> str:
    """Return the DSN without its password, fit for a log line."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return "postgresql://(unreadable)"
    user, at, hosts = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}{at}{hosts}"
    query = re.sub(r"(password=)[^&]*", r"\1***", parts.query)
    return f"{parts.scheme}://{netloc}{parts.path}{'?' if query else ''}{query}"


def session_settings(application_name: str) -> dict[str, str]:
    """Return the settings that every session of ours starts with."""
    return {**_BASE_SETTINGS, "application_name": application_name}


async def connect(
    dsn: str, *, application_name: str, timeout_s: float = CONNECT_TIMEOUT_S
) -> "asyncpg.Connection[asyncpg.Record]":
    """Open one connection to the host that accepts writes; one of CONNECTION_ERRORS if there is none."""
    connection: asyncpg.Connection[asyncpg.Record] = await _connect_to_any(
        dsn,
        timeout=timeout_s,
        target_session_attrs=SessionAttribute.read_write,
        server_settings=session_settings(application_name),
    )
    watch_for_dead_peer(connection)
    return connection


async def create_pool(
    dsn: str,
    *,
    application_name: str,
    min_connections: int = POOL_MIN_CONNECTIONS,
    max_connections: int = POOL_MAX_CONNECTIONS,
    stateless: bool = False,
    settings: Mapping[str, str] | None = None,
) -> "asyncpg.Pool[asyncpg.Record]":
    """Open a bounded pool; when all connections are in use, `acquire` waits for one.

    `stateless` promises that no user leaves settings, listeners or locks behind in a session, and saves
    the round trip that would clear them after each use. `settings` are added to those of every session.
    """
    return await asyncpg.create_pool(
        dsn,
        connect=_connect_to_any,
        min_size=min_connections,
        max_size=max_connections,
        max_inactive_connection_lifetime=POOL_IDLE_SECONDS,
        timeout=CONNECT_TIMEOUT_S,
        target_session_attrs=SessionAttribute.read_write,
        server_settings={**session_settings(application_name), **(settings or {})},
        init=_init_pooled,
        reset=_nothing_to_reset if stateless else None,
    )


def split_hosts(dsn: str) -> list[str]:
    """Return one DSN for each host that the URL names."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return [dsn]
    user, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [dsn]
    return [parts._replace(netloc=f"{user}{at}{host}").geturl() for host in hosts.split(",")]


# Untyped, since asyncpg's pool wants each of asyncpg.connect's parameters spelled out.
async def _connect_to_any(dsn: str | None = None, **options: Any) -> Any:
    """Ask all hosts at once and take the first that serves; if none does, raise what the first of them said.

    asyncpg asks one after the other within one time-out: a first host that hangs would use it up, always.
    """
    assert dsn is not None
    attempts = [asyncio.ensure_future(asyncpg.connect(one, **options)) for one in split_hosts(dsn)]
    try:
        connection = await _first(attempts)
    except BaseException:
        _abandon(attempts)
        raise
    _abandon(attempts, keep=connection)
    return connection


async def _first(attempts: list[asyncio.Task[Any]]) -> Any:
    for finished in asyncio.as_completed(attempts):
        with contextlib.suppress(*CONNECTION_ERRORS):
            return await finished
    return await attempts[0]


def _abandon(attempts: list[asyncio.Task[Any]], keep: object = None) -> None:
    """End attempts and what they have opened, or open yet, without waiting: a wait could be cancelled, and leave one open."""

    def end(attempt: asyncio.Task[Any]) -> None:
        if not attempt.cancelled() and attempt.exception() is None and attempt.result() is not keep:
            attempt.result().terminate()

    for attempt in attempts:
        attempt.cancel()
        attempt.add_done_callback(end)


async def _init_pooled(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    watch_for_dead_peer(connection)


async def _nothing_to_reset(_connection: object) -> None:
    return


def watch_for_dead_peer(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    """Turn on keep-alives and the limit for unacknowledged bytes on the client's side of a TCP connection.

    asyncpg offers no option for it, so its transport is reached directly. A Unix socket needs none.
    """
    transport: asyncio.Transport | None = getattr(connection, "_transport", None)
    shared = transport.get_extra_info("socket") if transport is not None else None
    if shared is None or shared.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    # Socket options belong to the connection, not to the descriptor: a duplicate sets them for both,
    # and works alike for asyncio's and uvloop's socket objects.
    with contextlib.closing(socket.socket(fileno=os.dup(shared.fileno()))) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)

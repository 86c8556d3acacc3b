"""How connections are made: to the host that writes, with a dead peer noticed, and no password shown."""

import contextlib
import os
import socket
from collections.abc import Callable

import asyncpg
import pytest

from exchange.runtime import postgres
from tests.postgres_fixture import Database


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:secret@h:5432/d", "postgresql://u@h:5432/d"),
        ("postgresql://u:secret@a:1,b:2/d?sslmode=require", "postgresql://u@a:1,b:2/d?sslmode=require"),
        ("postgresql://h/d?user=u&password=secret&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("postgresql://u:s@ecret@h/d", "postgresql://u@h/d"),
        ("postgresql:///d", "postgresql:///d"),
        ("postgresql://u:secret@[::1/d", "postgresql://(unreadable)"),
    ],
)
def test_a_redacted_dsn_shows_no_password(dsn: str, shown: str) -> None:
    assert postgres.redact(dsn) == shown


async def test_of_several_hosts_the_one_that_writes_is_taken(database: Database, free_port: Callable[[], int]) -> None:
    dead = f"127.0.0.1:{free_port()}"
    url = database.trading_url.replace("127.0.0.1", f"{dead},127.0.0.1")
    connection = await postgres.connect(url, application_name="a test")
    assert await connection.fetchval("SELECT current_setting('application_name')") == "a test"
    assert await connection.fetchval("SELECT current_setting('synchronous_commit')") == "on"
    assert await connection.fetchval("SELECT current_setting('statement_timeout')") == "0"
    await connection.close()


async def test_a_server_that_only_reads_is_refused(database: Database) -> None:
    owner = await asyncpg.connect(database.server.url("postgres", "postgres"))
    await owner.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    await owner.close()
    with pytest.raises(asyncpg.exceptions.TargetServerAttributeNotMatched) as caught:
        await postgres.connect(database.trading_url, application_name="a test")
    assert isinstance(caught.value, postgres.CONNECTION_ERRORS)


async def test_a_dead_peer_is_noticed_by_the_client(database: Database) -> None:
    pool = await postgres.create_pool(database.trading_url, application_name="a test")
    async with pool.acquire() as pooled:
        for connection in (pooled, await postgres.connect(database.trading_url, application_name="a test")):
            shared = getattr(connection, "_transport").get_extra_info("socket")  # noqa: B009 - private to the type checker
            with contextlib.closing(socket.socket(fileno=os.dup(shared.fileno()))) as sock:
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == postgres.KEEPALIVE_IDLE_S
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == postgres.UNACKNOWLEDGED_MS
        await connection.close()
    await pool.close()

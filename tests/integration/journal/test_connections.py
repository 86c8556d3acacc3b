"""How connections are made: to the host that writes, with a dead peer noticed, and no password shown."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg
import pytest

from exchange.runtime import postgres
from tests.postgres_fixture import Database


@dataclass(eq=False)
class Opened:
    """What stands for a connection."""

    ended: bool = False

    def terminate(self) -> None:
        self.ended = True


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


async def test_a_host_that_hangs_does_not_keep_clients_from_the_one_that_serves(database: Database) -> None:
    # It listens and never answers, as a stopped server does.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1"
        url = database.trading_url.replace("127.0.0.1", hosts)
        began = time.monotonic()
        connection = await postgres.connect(url, application_name="a test")
        await connection.close()
        pool = await postgres.create_pool(url, application_name="a test")
        assert await pool.fetchval("SELECT 1") == 1
        await pool.close()
        assert time.monotonic() - began < postgres.CONNECT_TIMEOUT_S


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://u:p@a:1,b:2/d?x=1", ["postgresql://u:p@a:1/d?x=1", "postgresql://u:p@b:2/d?x=1"]),
        ("postgresql://a/d", ["postgresql://a/d"]),
        ("postgresql:///d?host=/tmp", ["postgresql:///d?host=/tmp"]),
    ],
)
def test_a_url_of_several_hosts_is_one_for_each(dsn: str, hosts: list[str]) -> None:
    assert postgres.split_hosts(dsn) == hosts


@pytest.mark.parametrize("after", range(8))
async def test_a_connection_that_its_caller_gave_up_is_not_left_open(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Opened] = []

    async def connect(_dsn: str, **_options: object) -> Opened:
        await asyncio.sleep(0)
        opened.append(Opened())
        return opened[-1]

    monkeypatch.setattr(asyncpg, "connect", connect)
    monkeypatch.setattr(postgres, "watch_for_dead_peer", lambda _connection: None)
    opening = asyncio.create_task(postgres.connect("postgresql://a:1,b:2/d", application_name="a test"))
    for _ in range(after):
        await asyncio.sleep(0)
    opening.cancel()
    given = (await asyncio.gather(opening, return_exceptions=True))[0]
    for _ in range(8):
        await asyncio.sleep(0)
    assert [one for one in opened if not one.ended] == ([given] if isinstance(given, Opened) else [])


async def test_when_no_host_serves_the_reason_of_the_first_is_told(free_port: Callable[[], int]) -> None:
    first, second = free_port(), free_port()
    url = f"postgresql://u@127.0.0.1:{first},127.0.0.1:{second}/d"
    with pytest.raises(OSError, match=str(first)):
        await postgres.connect(url, application_name="a test")


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

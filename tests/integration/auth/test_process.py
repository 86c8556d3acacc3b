"""`python -m exchange.auth` as a process: it waits for its database, refuses what it must not serve, and ends in order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psycopg

from pincex.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from tests.integration.auth.auth_app import environment, eventually

if TYPE_CHECKING:
    from tests.postgres_fixture import Database

DEADLINE_S = 60.0
_FOREIGN = ("PINCEX_", "DATABASE_URL", "REDIS_URL", "JWT_SECRET", "LOG_LEVEL")


@contextmanager
def process(database: Database, folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    with (folder / "log").open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "exchange.auth"],
            env={**inherited, **environment(database, folder)._values, **variables},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.02)


def answer(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_it_serves_once_it_is_ready_and_ends_with_a_signal(
    database: Database, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with process(database, tmp_path, PINCEX_METRICS_PORT=str(port)) as started:
        until(lambda: answer(port, "/readyz") == (200, "ok\n"), "it is ready")
        status, metrics = answer(port, "/metrics")
        assert status == 200
        for series in ("pincex_auth_argon2_total", "pincex_auth_logins_total", "pincex_build_info"):
            assert f"# TYPE {series} " in metrics
        started.send_signal(signal.SIGTERM)
        assert started.wait(DEADLINE_S) == 0
    told = (tmp_path / "log").read_text()
    assert "Traceback" not in told
    password = (tmp_path / "secrets" / "operator-password").read_text()
    for secret in (password, "a secret of thirty-two characters", "what services of a test share"):
        assert secret not in told


def test_it_waits_for_a_database_that_is_not_there_yet(
    database: Database, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    nowhere = f"postgresql://auth_user:hidden-word@127.0.0.1:{free_port()}/pincex"
    with process(database, tmp_path, PINCEX_AUTH_DATABASE_URL=nowhere) as started:
        log = tmp_path / "log"
        until(lambda: log.read_text().count("waiting for the database") >= 2, "it waits")
        assert started.poll() is None
        assert "hidden-word" not in log.read_text()
        started.send_signal(signal.SIGTERM)
        assert started.wait(DEADLINE_S) == -signal.SIGTERM


def test_a_wrong_environment_is_told_and_refused(database: Database, tmp_path: Path) -> None:
    with process(database, tmp_path, PINCEX_AUTH_SECRET="too short") as started:
        assert started.wait(DEADLINE_S) == 2
    told = (tmp_path / "log").read_text()
    assert told.startswith("auth-service: PINCEX_AUTH_SECRET has 9 characters")


def test_another_secret_than_that_of_the_stored_keys_is_refused(
    database: Database, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with process(database, tmp_path, PINCEX_METRICS_PORT=str(port)):
        until(lambda: answer(port, "/readyz") == (200, "ok\n"), "it is ready")
    with process(database, tmp_path, PINCEX_AUTH_SECRET="another secret of thirty-two characters") as started:
        assert started.wait(DEADLINE_S) == 1
    assert "another PINCEX_AUTH_SECRET" in (tmp_path / "log").read_text()


async def test_a_kill_amid_refreshes_costs_nobody_the_session(
    database: Database, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """Whoever got no answer asks another instance, with the token that it had."""
    held: list[str] = []
    refreshed = 0

    async def keep_refreshing(stub: Any, number: int) -> None:
        nonlocal refreshed
        while True:
            found = await stub.RefreshTokens(auth_service_pb2.RefreshTokensRequest(refresh_token=held[number]))
            held[number] = found.refresh_token
            refreshed += 1

    (first_port, first), (second_port, second) = [(free_port(), free_port()) for _ in range(2)]
    with (
        process(database, tmp_path, PINCEX_GRPC_PORT=str(first_port), PINCEX_METRICS_PORT=str(first)) as victim,
        process(database, tmp_path, PINCEX_GRPC_PORT=str(second_port), PINCEX_METRICS_PORT=str(second)),
    ):
        for port in (first, second):
            until(lambda port=port: answer(port, "/readyz") == (200, "ok\n"), "it is ready")  # type: ignore[misc]
        password = (tmp_path / "secrets" / "operator-password").read_text()
        login = auth_service_pb2.LoginRequest(email="operator@localhost", password=password)
        async with stub_of(first_port) as stub, stub_of(second_port) as survivor:
            held += [(await stub.Login(login)).refresh_token for _ in range(4)]
            storm = [asyncio.create_task(keep_refreshing(stub, number)) for number in range(len(held))]
            await eventually(lambda: refreshed > 40, "many refreshes")
            victim.kill()
            await asyncio.wait(storm)
            assert all(isinstance(task.exception(), grpc.aio.AioRpcError) for task in storm)
            for token in held:
                request = auth_service_pb2.RefreshTokensRequest(refresh_token=token)
                assert (await survivor.RefreshTokens(request)).user_id
    with psycopg.connect(database.admin_url) as connection:
        unused = connection.execute(
            "SELECT count(*) FILTER (WHERE used_at IS NULL) FROM refresh_tokens GROUP BY session_id"
        ).fetchall()
    assert unused == [(1,)] * len(held)


@asynccontextmanager
async def stub_of(port: int) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = auth_service_pb2_grpc.AuthServiceStub
        yield stub(channel)

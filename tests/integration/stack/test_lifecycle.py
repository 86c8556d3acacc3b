"""`pincex up`, `status`, `kill`, `down` with real PostgreSQL, Valkey and Envoy."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.edge_http import call
from tests.stack_fixture import StackFolder, eventually, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack_fixture import ExchangeStack

NAMES = ["postgres", "valkey", "trading-engine-1", "auth-service-1", "admin", "settlement-1", "envoy"]


def processes_of(home: Path) -> list[int]:
    """Pids of all processes that have the data folder in their command, folder or environment."""
    needle = str(home).encode()
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            told += str((process / "cwd").readlink()).encode()
        except OSError:
            continue
        if needle in told:
            found.append(int(process.name))
    return found


@pytest.fixture
def stack(folder: StackFolder) -> Iterator[ExchangeStack]:
    with running_stack(folder) as found:
        yield found


def test_up_returns_when_all_is_healthy_and_down_leaves_no_process(folder: StackFolder) -> None:
    with running_stack(folder) as stack:
        status = stack.status()
        assert status["state"] == "running"
        assert [service["name"] for service in status["services"]] == NAMES
        assert {service["state"] for service in status["services"]} == {"ready"}
        for service in status["services"]:
            assert set(service) >= {"name", "service", "role", "state", "pid", "ports"}
            os.kill(service["pid"], 0)
        assert call(f"{stack.edge_url}/api/v1/health").status == 200
        # Once for all services, though each waits for it.
        assert folder.log("migrate").count(" applied\n") == 1
        assert "nothing to apply" not in folder.log("migrate")
        printed = folder.command("status", "--json")
        assert printed.returncode == 0
        assert json.loads(printed.stdout) == stack.status()

        stopped = folder.command("down")

        assert (stopped.returncode, stopped.stdout) == (0, "the exchange is stopped\n")

    assert processes_of(folder.home) == []
    printed = folder.command("status", "--json")
    assert printed.returncode == 1
    assert json.loads(printed.stdout)["state"] == "stopped"
    assert folder.command("down").returncode == 0


def test_a_second_up_resumes_the_same_exchange(folder: StackFolder) -> None:
    with running_stack(folder) as stack:
        first = stack.status()
        assert stack.admin_database_url is not None
        with psycopg.connect(stack.admin_database_url) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            connection.execute("INSERT INTO kept VALUES (7)")

    with running_stack(folder) as stack:
        second = stack.status()
        assert stack.admin_database_url is not None
        with psycopg.connect(stack.admin_database_url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)

    for name in ("edge_url", "ops_url", "database_url", "admin_database_url", "redis_url"):
        assert first[name] == second[name]


def test_up_while_it_runs_says_so_and_changes_nothing(fake_stack: ExchangeStack) -> None:
    before = fake_stack.status()

    again = fake_stack.folder.command("up")

    assert again.returncode == 0
    assert "running already" in again.stdout
    assert fake_stack.edge_url in again.stdout
    refused = fake_stack.folder.command("up", "--standby")
    assert refused.returncode == 1
    assert "without a standby" in refused.stderr
    assert fake_stack.status() == before


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_process_is_started_again_and_the_exchange_answers(fake_stack: ExchangeStack, name: str) -> None:
    fake_stack.restart(name)

    eventually(lambda: call(f"{fake_stack.edge_url}/api/v1/health").status == 200, "the edge answers")
    assert fake_stack.instance(name)["restarts"] == 1


def test_kill_by_command_says_what_it_did(fake_stack: ExchangeStack) -> None:
    pid = fake_stack.instance("valkey")["pid"]

    done = fake_stack.folder.command("kill", "valkey", "--signal", "term")

    assert (done.returncode, done.stdout) == (0, f"sent SIGTERM to valkey (pid {pid})\n")
    eventually(lambda: fake_stack.instance("valkey")["pid"] not in {pid, None}, "it runs again")
    for arguments, said in (
        (("kill", "nobody"), "there is no nobody"),
        (("kill", "valkey", "-s", "LOUD"), "no signal"),
    ):
        refused = fake_stack.folder.command(*arguments)
        assert refused.returncode == 1
        assert said in refused.stderr


def test_what_a_killed_supervisor_left_is_ended_by_the_next_up(stack: ExchangeStack) -> None:
    before = {service["pid"] for service in stack.status()["services"]}
    supervisor = [pid for pid in processes_of(stack.home) if "daemon" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(supervisor) == 1
    os.kill(supervisor[0], signal.SIGKILL)
    eventually(lambda: stack.folder.status()["state"] == "stopped", "the lock is free")

    started = stack.folder.command("up", "--detach")

    assert started.returncode == 0, started.stderr
    after = {service["pid"] for service in stack.status()["services"]}
    assert not before & after
    assert not before & set(processes_of(stack.home))


def test_down_ends_what_a_killed_supervisor_left(folder: StackFolder) -> None:
    with running_stack(folder) as stack:
        supervisor = [pid for pid in processes_of(stack.home) if "daemon" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(supervisor[0], signal.SIGKILL)
        eventually(lambda: folder.status()["state"] == "stopped", "the lock is free")
        assert processes_of(folder.home)

        ended = folder.command("down")

        assert (ended.returncode, processes_of(folder.home)) == (0, [])
        assert "of an exchange whose supervisor was gone" in ended.stdout


def test_a_taken_port_is_named_with_the_variable_that_changes_it(folder: StackFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        failed = folder.with_environment(PINCEX_EDGE_PORT=str(port)).command("up", "--detach")

    assert failed.returncode == 1
    assert f"port {port} (the public edge) is taken" in failed.stderr
    assert "PINCEX_EDGE_PORT" in failed.stderr
    assert processes_of(folder.home) == []


def test_an_engine_that_does_not_start_is_shown_with_its_log_and_leaves_nothing(folder: StackFolder) -> None:
    failed = folder.with_environment(FAKE_ENGINE_CRASH="trading-engine-1").command("up", "--detach")

    assert failed.returncode == 1
    assert "trading-engine-1 did not start (exit status 1)" in failed.stderr
    assert "trading-engine-1.log" in failed.stderr
    assert "the fake engine was told to crash" in failed.stderr
    assert processes_of(folder.home) == []


def test_memory_mode_runs_without_a_database(folder: StackFolder) -> None:
    with running_stack(folder, "--memory") as stack:
        assert stack.database_url is None
        assert [service["name"] for service in stack.status()["services"]] == ["valkey", "trading-engine-1", "envoy"]
        assert "without a database (--memory) the trading engine runs alone" in stack.said
        assert "without a database (--memory) the trading engine runs alone" in folder.command("status").stdout
        assert call(f"{stack.edge_url}/api/v1/health").status == 200


def test_in_the_foreground_ctrl_c_stops_all_in_order(folder: StackFolder) -> None:
    command = [str(Path(sys.executable).with_name("pincex")), "up"]
    with subprocess.Popen(
        command,
        cwd=folder.home.parent,
        env={**folder.environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stdout is not None
        shown = []
        for line in up.stdout:
            shown.append(line)
            if "try: curl" in line:
                break
        up.send_signal(signal.SIGINT)
        rest = up.stdout.read()
        assert up.wait(60) == 0

    stopped = [line.split()[0] for line in rest.splitlines() if " stopped" in line and not line.startswith("the")]
    assert set(stopped[:4]) == {"trading-engine-1", "auth-service-1", "admin", "settlement-1"}
    assert stopped[4] == "envoy"
    assert set(stopped[5:]) == {"postgres", "valkey"}
    assert rest.endswith("the exchange is stopped\n")
    assert processes_of(folder.home) == []


SECRETS = {
    "trading-engine-1": {"DATABASE_URL", "REDIS_URL", "JWT_SECRET"},
    "auth-service-1": {"PINCEX_AUTH_DATABASE_URL", "PINCEX_AUTH_SECRET", "REDIS_URL", "JWT_SECRET"},
    "admin": {"PINCEX_AUDIT_DATABASE_URL", "REDIS_URL", "JWT_SECRET"},
    "settlement-1": {"PINCEX_SETTLEMENT_DATABASE_URL", "REDIS_URL", "JWT_SECRET"},
    "envoy": set[str](),
    "postgres": set[str](),
    "valkey": set[str](),
}


@pytest.mark.parametrize("name", SECRETS)
def test_each_process_gets_the_secrets_that_it_needs_and_no_other(fake_stack: ExchangeStack, name: str) -> None:
    told = Path(f"/proc/{fake_stack.instance(name)['pid']}/environ").read_bytes().decode().split("\0")
    found = {variable.partition("=")[0] for variable in told}

    assert {variable for variable in found if variable.endswith(("_URL", "_SECRET"))} - {"PINCEX_ENVOY_STATS_URL"} == (
        SECRETS[name]
    )


def test_the_auth_service_is_scaled_and_restarted_as_the_engine_is(fake_stack: ExchangeStack) -> None:
    folder = fake_stack.folder
    assert folder.command("scale", "auth-service=2").returncode == 0
    assert fake_stack.instance("auth-service-2")["state"] == "ready"
    assert folder.command("restart", "auth-service").returncode == 0
    assert call(f"{fake_stack.edge_url}/api/v1/auth/time").status == 200
    assert folder.command("scale", "auth-service=1").returncode == 0
    refused = folder.command("scale", "admin=2")
    assert "admin cannot be scaled; services that can: trading-engine, auth-service, settlement" in refused.stderr


def test_what_would_open_the_exchange_to_strangers_is_not_started(folder: StackFolder) -> None:
    everywhere = "0.0.0.0"

    failed = folder.with_environment(PINCEX_EDGE_HOST=everywhere).command("up")

    assert failed.returncode == 1
    assert "the development profile lets everybody in without a password" in failed.stderr
    assert processes_of(folder.home) == []


def test_status_and_logs_are_readable_by_people(fake_stack: ExchangeStack) -> None:
    shown = fake_stack.folder.command("status").stdout
    for name in NAMES:
        assert name in shown
    assert "ready to accept connections" in fake_stack.folder.command("logs", "postgres").stdout
    unknown = fake_stack.folder.command("logs", "nobody")
    assert unknown.returncode == 1
    assert "trading-engine-1" in unknown.stderr


def test_commands_refuse_what_is_not_there(folder: StackFolder) -> None:
    for arguments in (("status",), ("kill", "envoy"), ("scale", "trading-engine=2")):
        refused = folder.command(*arguments)
        assert refused.returncode == 1
        assert "not running" in refused.stderr

"""`pincex restart`: a service with all its instances, one after the other, with what is installed and in `.env` now."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from tests.edge_http import call
from tests.integration.stack.conftest import fake_folder
from tests.stack_fixture import eventually, running_stack, temporary_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stack_fixture import ExchangeStack

ENGINES = [f"trading-engine-{number}" for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[ExchangeStack]:
    """Three engines, of which the second leads; each test finds and leaves all healthy."""
    with temporary_home() as home, running_stack(fake_folder(home)) as stack:
        scaled = stack.folder.command("scale", "trading-engine=3")
        assert scaled.returncode == 0, scaled.stderr
        (stack.home / "switches" / "LEADER").write_text("trading-engine-2")
        yield stack


@pytest.fixture
def dotenv(fleet: ExchangeStack) -> Iterator[Path]:
    """The file beside the data folder that settings are read from; it is gone after the test."""
    file = fleet.home.parent / ".env"
    yield file
    file.unlink(missing_ok=True)


def pids(stack: ExchangeStack) -> dict[str, int]:
    return {name: stack.instance(name)["pid"] for name in ENGINES}


def test_followers_are_restarted_first_and_the_edge_answers_all_the_while(fleet: ExchangeStack) -> None:
    before, done = pids(fleet), threading.Event()
    ports = {name: str(fleet.instance(name)["ports"]["grpc"]) for name in ENGINES}
    seen: list[int] = []
    left_out: set[tuple[str, ...]] = set()

    def ask() -> None:
        while not done.is_set():
            seen.append(call(f"{fleet.edge_url}/api/v1/health").status)
            published = (fleet.home / "envoy" / "endpoints" / "trading.json").read_text()
            left_out.add(tuple(name for name in ENGINES if ports[name] not in published))

    asking = threading.Thread(target=ask)
    asking.start()
    restarted = fleet.folder.command("restart", "trading-engine")
    done.set()
    asking.join()

    assert restarted.returncode == 0, restarted.stderr
    after = pids(fleet)
    assert restarted.stdout.splitlines() == [
        f"trading-engine-1 (follower): pid {before['trading-engine-1']} -> {after['trading-engine-1']}",
        f"trading-engine-3 (follower): pid {before['trading-engine-3']} -> {after['trading-engine-3']}",
        f"trading-engine-2 (leader): pid {before['trading-engine-2']} -> {after['trading-engine-2']}",
    ]
    assert not set(before.values()) & set(after.values())
    assert set(seen) == {200}, f"{len(seen)} calls"
    assert left_out == {(), *((name,) for name in ENGINES)}, "who is about to stop gets nothing more, one at a time"
    assert [fleet.instance(name)["role"] for name in ENGINES] == ["follower", "leader", "follower"]


def test_a_setting_that_breaks_the_first_instance_stops_there_and_can_be_taken_back(
    fleet: ExchangeStack, dotenv: Path
) -> None:
    before = pids(fleet)
    dotenv.write_text("FAKE_ENGINE_CRASH=trading-engine-1\n")

    broken = fleet.folder.command("restart", "trading-engine")

    assert broken.returncode == 1
    assert "trading-engine-1 did not start (exit status 1)" in broken.stderr
    assert "the fake engine was told to crash" in broken.stderr
    now = {name: fleet.instance(name)["pid"] for name in ENGINES[1:]}
    assert now == {name: before[name] for name in ENGINES[1:]}, "the others run on as they were"
    assert call(f"{fleet.edge_url}/api/v1/health").status == 200

    dotenv.write_text("")
    mended = fleet.folder.command("restart", "trading-engine")

    assert mended.returncode == 0, mended.stderr
    assert len(mended.stdout.splitlines()) == 3


def test_settings_that_cannot_be_read_restart_nothing(fleet: ExchangeStack, dotenv: Path) -> None:
    before = pids(fleet)
    dotenv.write_text("nonsense\n")

    refused = fleet.folder.command("restart", "trading-engine")

    assert refused.returncode == 1
    assert ".env:1" in refused.stderr
    assert pids(fleet) == before


@pytest.mark.parametrize("name", ["valkey", "envoy", "postgres"])
def test_a_service_with_one_instance_is_just_restarted(fleet: ExchangeStack, name: str) -> None:
    before = fleet.instance(name)

    restarted = fleet.folder.command("restart", name)

    assert restarted.returncode == 0, restarted.stderr
    after = fleet.instance(name)
    assert restarted.stdout == f"{name} ({before['role']}): pid {before['pid']} -> {after['pid']}\n"
    eventually(lambda: call(f"{fleet.edge_url}/api/v1/health").status == 200, "the edge answers")


def test_what_is_no_service_is_refused(fleet: ExchangeStack) -> None:
    refused = fleet.folder.command("restart", "trading-engine-1")

    assert refused.returncode == 1
    assert "there is no service trading-engine-1" in refused.stderr
    assert "trading-engine, auth-service, admin, settlement, envoy" in refused.stderr


def test_scaling_the_engine_to_none_warns_of_the_trap_and_the_edge_says_why_it_refuses(fleet: ExchangeStack) -> None:
    told = len(fleet.folder.log("supervisor").splitlines())
    stopped = fleet.folder.command("scale", "trading-engine=0")

    assert (stopped.returncode, stopped.stdout) == (0, "trading-engine: 3 -> 0\n")
    events = [json.loads(line) for line in fleet.folder.log("supervisor").splitlines()[told:]]
    assert [event["name"] for event in events if event["state"] == "stopping"][-1] == "trading-engine-2", "it leads"
    assert "nobody can cancel either" in stopped.stderr
    assert "pincex admin cancel-only" in stopped.stderr
    refused = call(f"{fleet.edge_url}/api/v1/orders/o-1", "DELETE")
    assert (refused.status, refused.reason()) == (503, "UPSTREAM_UNAVAILABLE")
    assert refused.headers["retry-after"] == "1"
    nothing = fleet.folder.command("restart", "trading-engine")
    assert nothing.returncode == 1
    assert "pincex scale trading-engine=N" in nothing.stderr

    started = fleet.folder.command("scale", "trading-engine=3")

    assert (started.returncode, started.stderr) == (0, "")
    eventually(lambda: call(f"{fleet.edge_url}/api/v1/health").status == 200, "the edge answers")

"""What is wired together, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exchange.stack.config import UpOptions, load_config
from exchange.stack.files import make_home
from exchange.stack.services import Stack, build

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FREE = {f"PINCEX_{name}_PORT": "0" for name in ("EDGE", "OPS", "DEBUG", "ENVOY_ADMIN", "TLS", "MTLS")}


def wired(tmp_path: Path, given: Mapping[str, str] | None = None, *, memory: bool = False) -> Stack:
    """A stack with these settings; more may be given in `.env`."""
    config = load_config({"PINCEX_HOME": str(tmp_path / "home"), **FREE, **(given or {})}, tmp_path)
    make_home(config.home)
    return build(config, UpOptions(memory=memory), lambda _: None)


async def test_a_restart_takes_new_settings_but_keeps_the_profile(tmp_path: Path) -> None:
    stack = wired(tmp_path, memory=True)
    (engine,) = (one for one in stack.services if one.traits.name == "trading-engine")
    (tmp_path / ".env").write_text("LOG_LEVEL=DEBUG\nPINCEX_PROFILE=production\n")

    await engine.renew()

    environment = engine.launch(1).environment
    assert (environment["LOG_LEVEL"], environment["PINCEX_PROFILE"]) == ("DEBUG", "development")


def test_what_needs_a_database_waits_for_it_and_is_left_out_without_one(tmp_path: Path) -> None:
    with_one = {one.traits.name: one.traits.needs for one in wired(tmp_path).services}
    without = wired(tmp_path, memory=True)

    stores = ("postgres", "valkey")
    ours = ("trading-engine", "auth-service", "admin", "settlement")
    assert {name: with_one[name] for name in ours} == dict.fromkeys(ours, stores)
    assert [one.traits.name for one in without.services] == ["valkey", "trading-engine", "envoy"]
    assert "auth-service" not in without.health_paths
    assert without.note


@pytest.mark.parametrize("given", [{}, {"PINCEX_AUTH_SECRET": "s" * 40}])
def test_what_is_encrypted_at_rest_is_readable_after_the_next_start(tmp_path: Path, given: dict[str, str]) -> None:
    secrets = set()
    for _ in range(2):
        (auth,) = (one for one in wired(tmp_path, given).services if one.traits.name == "auth-service")
        secrets.add(auth.launch(1).environment["PINCEX_AUTH_SECRET"])

    assert len(secrets) == 1
    (secret,) = secrets
    assert len(secret) >= 32
    assert given.get("PINCEX_AUTH_SECRET", secret) == secret


def test_databases_of_an_operators_own_are_opened_as_the_operator_says(tmp_path: Path) -> None:
    urls = {
        "DATABASE_URL": "postgresql://trading@db/pincex",
        "PINCEX_AUTH_DATABASE_URL": "postgresql://auth@db/pincex",
        "PINCEX_AUDIT_DATABASE_URL": "postgresql://audit@db/pincex",
        "PINCEX_SETTLEMENT_DATABASE_URL": "postgresql://settlement@db/pincex",
    }
    services = {one.traits.name: one for one in wired(tmp_path, urls).services}

    assert "postgres" not in services
    found = {
        name: {key: value for key, value in services[name].launch(1).environment.items() if key in urls}
        for name in ("trading-engine", "auth-service", "admin", "settlement")
    }
    assert found == {
        "trading-engine": {"DATABASE_URL": urls["DATABASE_URL"]},
        "auth-service": {"PINCEX_AUTH_DATABASE_URL": urls["PINCEX_AUTH_DATABASE_URL"]},
        "admin": {"PINCEX_AUDIT_DATABASE_URL": urls["PINCEX_AUDIT_DATABASE_URL"]},
        "settlement": {"PINCEX_SETTLEMENT_DATABASE_URL": urls["PINCEX_SETTLEMENT_DATABASE_URL"]},
    }


def test_services_are_told_where_they_reach_one_another(tmp_path: Path) -> None:
    stack = wired(tmp_path)
    ours = [one for one in stack.services if one.traits.name in {"trading-engine", "settlement"}]

    targets = {one.launch(1).environment["PINCEX_INTERNAL_TARGET"] for one in ours}

    assert targets == {(stack.addresses["internal_url"] or "").removeprefix("http://")}
    assert "PINCEX_INTERNAL_TARGET" not in wired(tmp_path, memory=True).services[1].launch(1).environment

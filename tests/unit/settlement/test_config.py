"""What settlement needs from its environment, and what it says where that is missing."""

from __future__ import annotations

import pytest

from exchange.runtime.config import ConfigError, Environment
from exchange.runtime.service_app import run_service
from exchange.settlement.__main__ import App
from exchange.settlement.config import SERVICE, Config

GOOD = {"PINCEX_PROFILE": "development", "PINCEX_INTERNAL_TARGET": "127.0.0.1:1", "DATABASE_URL": "postgresql://x@h/d"}


def test_the_database_of_its_own_comes_before_the_common_one() -> None:
    assert Config.read(Environment(GOOD)).database_url.reveal() == GOOD["DATABASE_URL"]
    own = Config.read(Environment({**GOOD, "PINCEX_SETTLEMENT_DATABASE_URL": "postgresql://s@h/d"}))
    assert own.database_url.reveal() == "postgresql://s@h/d"
    assert own.reconcile_every_s == 30.0


@pytest.mark.parametrize("missing", ["DATABASE_URL", "PINCEX_INTERNAL_TARGET"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        Config.read(Environment({name: value for name, value in GOOD.items() if name != missing}))


def test_a_wrong_environment_ends_the_process_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Environment, "load", lambda: Environment({}))
    assert run_service(SERVICE, Config.read, App) == 2
    assert capsys.readouterr().err.startswith("settlement: ")

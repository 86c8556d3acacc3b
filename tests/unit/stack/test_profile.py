"""What the profile refuses before anything is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exchange.stack.config import StackConfig, load_config
from exchange.stack.edge.plan import Rates
from exchange.stack.errors import StackError
from exchange.stack.profile import check_profile

if TYPE_CHECKING:
    from pathlib import Path

PRODUCTION = {"PINCEX_PROFILE": "production"}


def config(tmp_path: Path, **variables: str) -> StackConfig:
    return load_config({"PINCEX_HOME": str(tmp_path / "home"), **variables}, tmp_path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
@pytest.mark.parametrize("has_tls", [True, False])
def test_development_is_refused_where_others_can_reach_it_even_over_tls(
    tmp_path: Path, host: str, *, has_tls: bool
) -> None:
    with pytest.raises(StackError, match="the development profile lets everybody in without a password"):
        check_profile(config(tmp_path, PINCEX_EDGE_HOST=host), memory=False, has_tls=has_tls)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
@pytest.mark.parametrize("memory", [True, False])
def test_development_is_at_home_on_this_machine(tmp_path: Path, host: str, *, memory: bool) -> None:
    check_profile(config(tmp_path, PINCEX_EDGE_HOST=host), memory=memory, has_tls=False)


def test_production_takes_passwords_from_elsewhere_over_tls_only(tmp_path: Path) -> None:
    reachable = config(tmp_path, PINCEX_EDGE_HOST="192.0.2.7", **PRODUCTION)

    check_profile(reachable, memory=False, has_tls=True)
    check_profile(config(tmp_path, **PRODUCTION), memory=False, has_tls=False)
    with pytest.raises(StackError, match="PINCEX_TLS=on"):
        check_profile(reachable, memory=False, has_tls=False)


def test_production_needs_an_auth_service(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="with --memory there is no auth service"):
        check_profile(config(tmp_path, **PRODUCTION), memory=True, has_tls=False)


def test_a_profile_is_one_of_two_and_decides_the_rates(tmp_path: Path) -> None:
    assert config(tmp_path).profile == "development"
    assert config(tmp_path, PINCEX_PROFILE="Production").rates == Rates(known=2_000, unknown=200, credentials=10)
    chosen = {
        "PINCEX_EDGE_REQUESTS_PER_SECOND": "7",
        "PINCEX_EDGE_ANONYMOUS_REQUESTS_PER_SECOND": "6",
        "PINCEX_EDGE_LOGINS_PER_SECOND": "5",
    }
    assert config(tmp_path, **PRODUCTION, **chosen).rates == Rates(known=7, unknown=6, credentials=5)
    with pytest.raises(StackError, match="PINCEX_PROFILE must be development or production, not 'staging'"):
        config(tmp_path, PINCEX_PROFILE="staging")
    with pytest.raises(StackError, match="PINCEX_EDGE_REQUESTS_PER_SECOND must be a whole number from 1"):
        config(tmp_path, PINCEX_EDGE_REQUESTS_PER_SECOND="0")

"""What the auth service reads from its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.auth.config import Argon2Parameters, Config
from exchange.runtime.config import ConfigError, Environment

LEAST = {
    "DATABASE_URL": "postgresql://auth_user@127.0.0.1/pincex",
    "PINCEX_AUTH_SECRET": "a secret of thirty-two characters",
    "JWT_SECRET": "what services share",
}


def read(**more: str) -> Config:
    return Config.read(Environment({**LEAST, **more}))


def test_without_more_the_costs_are_those_that_owasp_advises() -> None:
    config = read(PINCEX_HOME="data")
    assert config.argon2 == Argon2Parameters(memory_kib=19_456, iterations=2, parallelism=1)
    assert (config.access_token_s, config.refresh_token_s) == (300, 30 * 86_400)
    assert config.mailbox_dir == Path("data/mailbox")
    assert config.database_url.reveal() == LEAST["DATABASE_URL"]


def test_the_service_has_a_database_role_of_its_own_where_one_is_given() -> None:
    config = read(PINCEX_AUTH_DATABASE_URL="postgresql://other@127.0.0.1/pincex")
    assert config.database_url.reveal() == "postgresql://other@127.0.0.1/pincex"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PINCEX_AUTH_SECRET", "only thirty-one characters long"),
        ("PINCEX_AUTH_SECRET", ""),
        ("JWT_SECRET", ""),
        ("DATABASE_URL", ""),
        ("PINCEX_ARGON2_MEMORY_KIB", "7"),
        ("PINCEX_ARGON2_ITERATIONS", "0"),
        ("PINCEX_ACCESS_TOKEN_SECONDS", "3601"),
        ("PINCEX_REFRESH_TOKEN_DAYS", "0"),
    ],
)
def test_what_is_missing_or_wrong_is_named_and_no_secret_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        read(**{name: value})
    assert not value or name != "PINCEX_AUTH_SECRET" or value not in str(caught.value)


def test_argon2_needs_eight_kib_for_each_lane() -> None:
    with pytest.raises(ConfigError, match="PINCEX_ARGON2_MEMORY_KIB is 31"):
        read(PINCEX_ARGON2_PARALLELISM="4", PINCEX_ARGON2_MEMORY_KIB="31")
    assert read(PINCEX_ARGON2_PARALLELISM="4", PINCEX_ARGON2_MEMORY_KIB="32").argon2 == Argon2Parameters(32, 2, 4)

"""What the wallet reads from its environment."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exchange.runtime.config import ConfigError, Environment
from exchange.wallet.config import DAY_S, Config

NEEDED = {
    "PINCEX_INTERNAL_TARGET": "127.0.0.1:1",
    "DATABASE_URL": "postgresql://wallet_user@127.0.0.1/pincex",
    "PINCEX_KYC_SECRET": "k" * 32,
}


def read(**variables: str) -> Config:
    return Config.read(Environment({**NEEDED, **variables}))


def test_what_is_not_said_has_a_default() -> None:
    config = read()
    assert [one.network for one in read(PINCEX_PROFILE="development").networks] == ["simulated"] * 4
    assert config.networks == (), "nobody makes money from nothing unless somebody has said so"
    assert (config.simulated_block_s, config.simulated_seed) == (1.0, 0)
    assert config.approval == {"BTC": Decimal("0.5"), "ETH": Decimal(5), "USD": Decimal(10_000)}
    assert config.cooling_s == DAY_S
    assert read(PINCEX_PROFILE="development").cooling_s == 0
    assert read(PINCEX_WITHDRAWAL_APPROVAL=",").approval == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PINCEX_WALLET_NETWORKS", "BTC"),
        ("PINCEX_WALLET_NETWORKS", "BTC/bitcoin:6:0:0"),
        ("PINCEX_SIMULATED_BLOCK_SECONDS", "0"),
        ("PINCEX_SIMULATED_SEED", "-1"),
        ("PINCEX_WITHDRAWAL_APPROVAL", "BTC"),
        ("PINCEX_WITHDRAWAL_APPROVAL", "BTC=-1"),
        ("PINCEX_WITHDRAWAL_APPROVAL", "btc=1"),
        ("PINCEX_WITHDRAWAL_COOLING_SECONDS", "-1"),
        ("PINCEX_KYC_SECRET", "short"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        read(**{name: value})

"""Settings of KYC, and the table of tiers that they may change."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest

from exchange.kyc.config import KycConfig
from exchange.kyc.tiers import DEFAULTS, parse_daily
from exchange.runtime.config import ConfigError, Environment

SECRET = {"PINCEX_KYC_SECRET": "a secret of thirty-two characters and more"}


def test_without_more_the_table_is_the_default() -> None:
    config = KycConfig.read(Environment(SECRET))
    assert (config.tiers, config.screening_list) == (DEFAULTS, None)


def test_amounts_of_a_tier_can_be_set() -> None:
    config = KycConfig.read(Environment({**SECRET, "PINCEX_KYC_TIER1_DAILY": "btc = 0.5, XRP=10000"}))
    assert config.tiers[1].daily == {"BTC": Decimal("0.5"), "XRP": Decimal(10000)}
    assert config.tiers[2] == DEFAULTS[2]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"PINCEX_KYC_SECRET": "short"},
        {**SECRET, "PINCEX_KYC_TIER2_DAILY": "BTC"},
        {**SECRET, "PINCEX_KYC_TIER2_DAILY": "BTC=-1"},
        {**SECRET, "PINCEX_KYC_TIER2_DAILY": "BTC=1e3"},
    ],
)
def test_what_is_wrong_is_named(values: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="PINCEX_KYC_"):
        KycConfig.read(Environment(values))


@pytest.mark.parametrize("text", ["", "=1", "BTC=1,BTC=2", "B TC=1", "BTC=1,", "BTC=0.0000000000001"])
def test_amounts_have_one_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"ASSET=AMOUNT|no amount"):
        parse_daily(text)


def test_a_higher_tier_never_allows_less() -> None:
    for lower, higher in itertools.pairwise(DEFAULTS):
        assert all(higher.daily[asset] >= amount for asset, amount in lower.daily.items())

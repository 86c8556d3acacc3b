"""Which asset goes over which network, as PINCEX_WALLET_NETWORKS says."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.wallet.config import DEFAULT_NETWORKS
from exchange.wallet.networks import Networks, Terms, parse_terms
from tests.integration.wallet.fakes import FakeAssets


class Somewhere:
    """A connector of this name."""

    def __init__(self, network: str) -> None:
        self.network = network


def networks(text: str, *names: str) -> Networks:
    connectors: list[Any] = [Somewhere(name) for name in names]
    return Networks(parse_terms(text), connectors, FakeAssets())


def test_terms_are_read() -> None:
    assert parse_terms(" BTC/simulated:2:0.0001:0.001 , */bank:1:0:5,") == (
        Terms("BTC", "simulated", 2, Decimal("0.0001"), Decimal("0.001")),
        Terms("*", "bank", 1, Decimal(0), Decimal(5)),
    )
    assert {one.asset for one in parse_terms(DEFAULT_NETWORKS)} == {"BTC", "ETH", "USD", "*"}


@pytest.mark.parametrize(
    "text",
    [
        "BTC",
        "btc/simulated:2:0:0",
        "BTC/Simulated:2:0:0",
        "BTC/a-network-of-many-letters:2:0:0",
        "BTC/simulated:0:0:0",
        "BTC/simulated:1001:0:0",
        "BTC/simulated:2:-1:0",
        "BTC/simulated:2:1e3:0",
        "BTC/simulated:2:0",
        "BTC/simulated:2:0:0,BTC/simulated:3:0:0",
    ],
)
def test_terms_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)btc"):
        parse_terms(text)


async def test_an_asset_without_terms_of_its_own_goes_by_those_of_all() -> None:
    found = networks("BTC/chain:6:0.1:1,*/bank:1:0:0,*/chain:2:0:0", "bank", "chain")
    assert [(one.asset, one.network, one.required_confirmations) for one in await found.all()] == [
        ("BTC", "chain", 6),
        ("BTC", "bank", 1),
        ("ETH", "bank", 1),
        ("ETH", "chain", 2),
        ("USD", "bank", 1),
        ("USD", "chain", 2),
    ]
    assert (await found.find("btc")).network == "chain", "the first"
    assert (await found.find("BTC", "bank")).least == 1, "never less than the smallest unit"


async def test_amounts_are_in_units_of_the_asset_and_rounded_up() -> None:
    found = await networks("USD/bank:1:0.001:10.25", "bank").find("USD")
    assert (found.decimals, found.fee, found.least) == (2, 1, 1025)


@pytest.mark.parametrize(
    ("asset", "network", "reason"),
    [
        ("", "", ErrorReason.FIELD_REQUIRED),
        ("DOGE", "", ErrorReason.UNKNOWN_ASSET),
        ("BTC", "moon", ErrorReason.UNKNOWN_NETWORK),
        ("ETH", "", ErrorReason.UNKNOWN_NETWORK),
        ("BTC", "gone", ErrorReason.UNKNOWN_NETWORK),
    ],
)
async def test_what_is_not_carried_is_refused(asset: str, network: str, reason: int) -> None:
    found = networks("BTC/bank:1:0:0,BTC/gone:1:0:0", "bank")
    with pytest.raises(ServiceError) as caught:
        await found.find(asset, network)
    assert caught.value.reason == reason

"""Which asset goes over which network, and on what terms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Final

from exchange.runtime.errors import ErrorReason, ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exchange.wallet.connector import Connector
    from exchange.wallet.engine import Assets

ANY_ASSET: Final = "*"
MAX_CONFIRMATIONS: Final = 1_000
# Network names stand in request ids, which have 64 characters at most.
_TERMS: Final = re.compile(
    r"(?P<asset>\*|[A-Z0-9]{2,10})/(?P<network>[a-z][a-z0-9-]{0,15})"
    r":(?P<confirmations>\d{1,4}):(?P<fee>\d{1,12}(\.\d{1,12})?):(?P<least>\d{1,12}(\.\d{1,12})?)"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """One entry of PINCEX_WALLET_NETWORKS. `asset` may be `*`: all that have no entry of their own."""

    asset: str
    network: str
    required_confirmations: int
    fee: Decimal
    least: Decimal


@dataclass(frozen=True, slots=True)
class Network:
    """One asset on one network. `fee` and `least` (of a withdrawal) are in smallest units of the asset."""

    asset: str
    network: str
    decimals: int
    required_confirmations: int
    fee: int
    least: int
    connector: Connector


def parse_terms(text: str) -> tuple[Terms, ...]:
    """`ASSET/network:confirmations:fee:least`, separated by commas. Raises ValueError, saying which entry is wrong."""
    found: list[Terms] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = _TERMS.fullmatch(entry)
        if match is None:
            raise ValueError(f"{entry!r} is not ASSET/network:confirmations:fee:least")
        confirmations = int(match["confirmations"])
        if not 1 <= confirmations <= MAX_CONFIRMATIONS:
            raise ValueError(f"{entry!r} must ask for 1 to {MAX_CONFIRMATIONS} confirmations")
        terms = Terms(match["asset"], match["network"], confirmations, Decimal(match["fee"]), Decimal(match["least"]))
        if any((terms.asset, terms.network) == (other.asset, other.network) for other in found):
            raise ValueError(f"{entry!r} names an asset and a network for the second time")
        found.append(terms)
    return tuple(found)


class Networks:
    """The terms of all networks that have a connector."""

    def __init__(self, terms: Sequence[Terms], connectors: Sequence[Connector], assets: Assets) -> None:
        self.connectors: Mapping[str, Connector] = {one.network: one for one in connectors}
        self._terms = tuple(one for one in terms if one.network in self.connectors)
        self.assets = assets

    async def find(self, asset: str, network: str = "") -> Network:
        """An asset (in any case) on a network, "" for its first.

        Raises ServiceError FIELD_REQUIRED, UNKNOWN_ASSET, UNKNOWN_NETWORK.
        """
        code = asset.upper()
        decimals = await self.assets.decimals(code)
        for terms in self._of(code):
            if network in {"", terms.network}:
                return self._network(terms, code, decimals)
        raise ServiceError(ErrorReason.UNKNOWN_NETWORK, metadata={"asset": code, "network": network})

    async def all(self) -> list[Network]:
        """By asset, and in the order of the terms."""
        assets = await self.assets.all()
        return [self._network(terms, code, assets[code]) for code in sorted(assets) for terms in self._of(code)]

    def _of(self, code: str) -> list[Terms]:
        own = [terms for terms in self._terms if terms.asset == code]
        taken = {terms.network for terms in own}
        return own + [terms for terms in self._terms if terms.asset == ANY_ASSET and terms.network not in taken]

    def _network(self, terms: Terms, code: str, decimals: int) -> Network:
        return Network(
            asset=code,
            network=terms.network,
            decimals=decimals,
            required_confirmations=terms.required_confirmations,
            fee=_units(terms.fee, decimals),
            least=max(_units(terms.least, decimals), 1),
            connector=self.connectors[terms.network],
        )


def _units(amount: Decimal, decimals: int) -> int:
    """Smallest units, rounded up where the asset has fewer decimals than the setting."""
    return int(amount.scaleb(decimals).to_integral_value(ROUND_CEILING))

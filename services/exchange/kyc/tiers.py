"""The tiers: what each lets a user do, and which of them a user has now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from exchange.domain.decimals import MAX_DECIMALS, DecimalError, PrecisionError, parse_units

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from exchange.runtime.database import Connection, Database

STANDARD: Final = "standard"
PROFESSIONAL: Final = "professional"
HIGHEST: Final = 2
ACCOUNT_PREFIX: Final = "account:"
"""Before the name of an account whose caller is no user: there are such in the development profile alone."""


@dataclass(frozen=True, slots=True)
class Tier:
    """What a tier allows: withdrawals within 24 hours by asset (one that is not named cannot be withdrawn), the tier of
    docs/LIMITS.md that trading obeys, and how many days an approval lasts, 0 where there is none.
    """

    tier: int
    daily: Mapping[str, Decimal]
    trading_tier: str
    valid_days: int


@dataclass(frozen=True, slots=True)
class TierLimits:
    """What a user has now. `expire_at` None: it has no end."""

    tier: int
    daily: Mapping[str, Decimal]
    expire_at: datetime | None = None


def _amounts(**amounts: str) -> Mapping[str, Decimal]:
    return MappingProxyType({asset: Decimal(amount) for asset, amount in amounts.items()})


DEFAULTS: Final = (
    Tier(0, _amounts(), STANDARD, 0),
    Tier(1, _amounts(BTC="0.1", ETH="2", USD="5000"), STANDARD, 730),
    Tier(2, _amounts(BTC="10", ETH="200", USD="500000"), PROFESSIONAL, 365),
)


def tiers(daily: Mapping[int, Mapping[str, Decimal]]) -> tuple[Tier, ...]:
    """The table with other daily amounts for the tiers that are named."""
    return tuple(replace(one, daily=daily.get(one.tier, one.daily)) for one in DEFAULTS)


def parse_daily(text: str) -> Mapping[str, Decimal]:
    """Amounts by asset of a text such as "BTC=0.5,USD=10000". Raises ValueError."""
    found: dict[str, Decimal] = {}
    for part in text.split(","):
        asset, equals, amount = (piece.strip() for piece in part.partition("="))
        code = asset.upper()
        if not equals or not code.isalnum() or code in found:
            raise ValueError(f"{part.strip()!r} is not ASSET=AMOUNT, once for each asset")
        try:
            parse_units(amount, MAX_DECIMALS)
        except (DecimalError, PrecisionError):
            raise ValueError(f"{amount!r} is no amount of {code}") from None
        found[code] = Decimal(amount)
    return MappingProxyType(found)


class KycTiers:
    """Which tier a user has. What has expired counts no more, whether or not the worker has seen it yet."""

    def __init__(self, database: Database, table: tuple[Tier, ...] = DEFAULTS) -> None:
        self._database = database
        self.table = table

    async def of(self, user: str) -> TierLimits:
        """A user by its id; "account:<account>" is of the development profile and has the highest. Raises ServiceError."""
        async with self._database.connection() as connection:
            return await self.read(connection, user)

    async def read(self, connection: Connection, user: str) -> TierLimits:
        """The same on a connection that the caller has."""
        if user.startswith(ACCOUNT_PREFIX):
            return TierLimits(HIGHEST, self.table[HIGHEST].daily)
        row = await connection.fetchrow(
            "SELECT tier, expire_at FROM kyc_user_tiers WHERE user_id = $1 AND tier > 0 AND expire_at > clock_timestamp()",
            user,
        )
        if row is None:
            return TierLimits(0, self.table[0].daily)
        return TierLimits(row["tier"], self.table[row["tier"]].daily, row["expire_at"])

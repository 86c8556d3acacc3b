"""How much an owner may withdraw within 24 hours, by KYC tier."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Protocol

from exchange.domain.decimals import format_units
from exchange.runtime.errors import ErrorReason, ServiceError, reject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exchange.runtime.database import Connection

_LOCK: Final = 0x57_4C_4D  # with a hash of the owner: one new withdrawal at a time
COUNTED: Final = """owner = $1 AND created_at > clock_timestamp() - interval '24 hours'
    AND status NOT IN ('WITHDRAWAL_CANCELLED', 'REJECTED', 'RETURNED')"""
"""Which withdrawals of an owner, $1, count: what ended without money going out does not; what is about to end so, until it has."""
_USED: Final = f"SELECT asset, sum(amount) AS used FROM withdrawals WHERE {COUNTED} GROUP BY asset"  # noqa: S608 - a text of ours


class TierLimits(Protocol):
    """What a KYC tier allows; `daily` is in whole units of the asset, and names no asset that it does not allow."""

    @property
    def tier(self) -> int:
        """Of the owner."""
        ...

    @property
    def daily(self) -> Mapping[str, Decimal]:
        """By asset."""
        ...


class Tiers(Protocol):
    """KYC's answer."""

    async def of(self, user: str) -> TierLimits:
        """What an owner may."""
        ...


@dataclass(frozen=True, slots=True)
class Limit:
    """Of one asset, in smallest units."""

    asset: str
    decimals: int
    daily: int
    used: int

    @property
    def left(self) -> int:
        """Never below zero: a tier may have been lowered."""
        return max(self.daily - self.used, 0)


def owner_of(user: str, account: str) -> str:
    """Whose limits count: all accounts of a user have them together."""
    return user or f"account:{account}"


def daily_units(tier: TierLimits, asset: str, decimals: int) -> int:
    """Smallest units within 24 hours; 0: the tier allows none."""
    return int(tier.daily.get(asset, Decimal(0)).scaleb(decimals))


async def used(connection: Connection, owner: str) -> dict[str, int]:
    """Smallest units within 24 hours, by asset."""
    return {row["asset"]: int(row["used"]) for row in await connection.fetch(_USED, owner)}


async def lock(connection: Connection, owner: str) -> None:
    """Until the transaction ends, no other withdrawal of the owner comes on record."""
    await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCK, owner)


def check(tier: TierLimits, asset: str, decimals: int, used_units: int, amount: int) -> None:
    """Let an amount through. `used_units` is read after `lock` and in its transaction, so that two at once pass no limit together.

    Raises ServiceError KYC_REQUIRED, WITHDRAWAL_LIMIT.
    """
    daily = daily_units(tier, asset, decimals)
    if daily <= 0:
        reject(ErrorReason.KYC_REQUIRED, asset=asset, tier=tier.tier)
    limit = Limit(asset, decimals, daily, used_units)
    if amount > limit.left:
        raise ServiceError(
            ErrorReason.WITHDRAWAL_LIMIT,
            metadata={"limit": format_units(limit.daily, decimals), "left": format_units(limit.left, decimals)},
        )

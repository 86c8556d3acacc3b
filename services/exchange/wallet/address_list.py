"""Addresses that an account may withdraw to, each usable after a cooling-off time."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from exchange.runtime.errors import ErrorReason, ServiceError, reject

if TYPE_CHECKING:
    from datetime import datetime

    from exchange.runtime.database import Database
    from exchange.wallet.networks import Networks

MAX_ADDRESSES: Final = 200
"""On the list of one account."""
MAX_ADDRESS: Final = 128
"""Characters of an address."""
MAX_LABEL: Final = 64
"""Characters of its label."""
_LOCK: Final = 0x57_41_44  # with a hash of the account: one new address at a time

_LISTED: Final = """
SELECT * FROM withdrawal_addresses
WHERE account = $1 AND asset = $2 AND network = $3 AND address = $4 AND removed_at IS NULL
"""
_ADD: Final = """
INSERT INTO withdrawal_addresses (address_id, account, asset, network, address, label, usable_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + $7) RETURNING *
"""
_PAGE: Final = """
SELECT * FROM withdrawal_addresses
WHERE account = $1 AND removed_at IS NULL AND (asset, label, number) > ($2, $3, $4::bigint)
ORDER BY asset, label, number LIMIT $5
"""


@dataclass(frozen=True, slots=True)
class Address:
    """One row."""

    number: int
    address_id: str
    asset: str
    network: str
    address: str
    label: str
    usable_at: datetime
    created_at: datetime

    @classmethod
    def of(cls, row: Any) -> Address:
        """From a row."""
        return cls(**{name: row[name] for name in cls.__slots__})


class AddressList:
    """The lists of all accounts."""

    def __init__(self, database: Database, networks: Networks, cooling_s: int) -> None:
        self._database = database
        self._networks = networks
        self._cooling = timedelta(seconds=cooling_s)

    async def add(self, account: str, asset: str, network: str, address: str, label: str) -> Address:
        """List it; one that is listed stays as it is, but for its label.

        Raises ServiceError FIELD_REQUIRED, INVALID_FIELD, UNKNOWN_ASSET, UNKNOWN_NETWORK, QUOTA_EXCEEDED.
        """
        found = await self._networks.find(asset, network)
        label = label_text(label)
        found.connector.check_address(found.asset, address_text(address))
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCK, account)
            row = await connection.fetchrow(_LISTED, account, found.asset, found.network, address)
            if row is not None:
                row = await connection.fetchrow(
                    "UPDATE withdrawal_addresses SET label = $2 WHERE number = $1 RETURNING *", row["number"], label
                )
                return Address.of(row)
            count = await connection.fetchval(
                "SELECT count(*) FROM withdrawal_addresses WHERE account = $1 AND removed_at IS NULL", account
            )
            if count >= MAX_ADDRESSES:
                raise ServiceError(
                    ErrorReason.QUOTA_EXCEEDED,
                    f"an account lists at most {MAX_ADDRESSES} addresses",
                    metadata={"limit": "withdrawal_addresses"},
                )
            address_id = f"wa_{secrets.token_hex(8)}"
            place = (account, found.asset, found.network, address, label)
            return Address.of(await connection.fetchrow(_ADD, address_id, *place, self._cooling))

    async def remove(self, account: str, address_id: str) -> None:
        """Take it off the list; one that was taken off already stays so. Raises ServiceError ADDRESS_NOT_LISTED."""
        async with self._database.connection() as connection:
            found = await connection.execute(
                "UPDATE withdrawal_addresses SET removed_at = coalesce(removed_at, clock_timestamp())"
                " WHERE account = $1 AND address_id = $2",
                account,
                address_id,
            )
        if found == "UPDATE 0":
            reject(ErrorReason.ADDRESS_NOT_LISTED, address_id=address_id)

    async def page(self, account: str, after: tuple[str, str, int], limit: int) -> list[Address]:
        """By asset and label, those behind a place; ("", "", 0) is the begin."""
        async with self._database.connection() as connection:
            return [Address.of(row) for row in await connection.fetch(_PAGE, account, *after, limit)]


def check_usable(usable_at: datetime | None, now: datetime, asset: str, network: str, address: str) -> None:
    """Raise ServiceError ADDRESS_NOT_LISTED where `usable_at` is None, or ADDRESS_COOLING_OFF saying for how long."""
    if usable_at is None:
        reject(ErrorReason.ADDRESS_NOT_LISTED, address=address, asset=asset, network=network)
    wait = usable_at - now
    if wait > timedelta(0):
        raise ServiceError(
            ErrorReason.ADDRESS_COOLING_OFF,
            metadata={"usable_time": usable_at.isoformat(timespec="seconds")},
            retry_after_seconds=wait.total_seconds(),
        )


def address_text(address: str) -> str:
    """An address as far as any network has them. Raises ServiceError FIELD_REQUIRED, INVALID_FIELD."""
    if not address:
        reject(ErrorReason.FIELD_REQUIRED, field="address")
    if len(address) > MAX_ADDRESS or not address.isascii() or not address.isprintable() or " " in address:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"address must be 1 to {MAX_ADDRESS} printable ASCII characters without spaces",
            metadata={"field": "address", "value": address},
        )
    return address


def label_text(label: str) -> str:
    """What people call it. Raises ServiceError FIELD_REQUIRED, INVALID_FIELD."""
    label = label.strip()
    if not label:
        reject(ErrorReason.FIELD_REQUIRED, field="label")
    if len(label) > MAX_LABEL or not label.isprintable():
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"label must be 1 to {MAX_LABEL} printable characters",
            metadata={"field": "label", "value": label},
        )
    return label

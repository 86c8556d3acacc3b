"""Withdrawals on record: how they come to be, and what their account and operators decide about them.

REQUESTED -> AWAITING_APPROVAL -> APPROVED -> SENDING -> BROADCAST -> SETTLED, each step written down before and after what it
does elsewhere (`withdrawal_steps.py` makes the steps). An end is decided once (`ending`), and reached when the engine has done
its part. Two who decide at the same time meet in one UPDATE with the state it starts from, and one of them finds it gone.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exchange.domain.decimals import format_units
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.fields import MAX_UNITS, fingerprint
from exchange.wallet import address_list, limits
from exchange.wallet.freezes import is_frozen

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from exchange.runtime.database import Connection, Database
    from exchange.wallet.networks import Network
    from exchange.wallet.stops import Stops

REQUESTED: Final = "REQUESTED"
AWAITING_APPROVAL: Final = "AWAITING_APPROVAL"
APPROVED: Final = "APPROVED"
SENDING: Final = "SENDING"
BROADCAST: Final = "BROADCAST"
SETTLED: Final = "SETTLED"
CANCELLED: Final = "WITHDRAWAL_CANCELLED"
REJECTED: Final = "REJECTED"
RETURNED: Final = "RETURNED"
FINAL: Final = frozenset({SETTLED, CANCELLED, REJECTED, RETURNED})

# All that a new one is checked against, read at one moment under the owner's lock.
_FACTS: Final = f"""
SELECT clock_timestamp() AS now, EXISTS (SELECT FROM withdrawals WHERE account = $2 AND request_id = $3) AS known,
    EXISTS (SELECT FROM wallet_freezes WHERE account = $2 AND frozen) AS frozen,
    (SELECT usable_at FROM withdrawal_addresses
        WHERE account = $2 AND asset = $4 AND network = $5 AND address = $6 AND removed_at IS NULL) AS usable_at,
    (SELECT coalesce(sum(amount), 0) FROM withdrawals WHERE {limits.COUNTED} AND asset = $4) AS used
"""  # noqa: S608 - a text of ours
_ADD: Final = """
INSERT INTO withdrawals (withdrawal_id, account, owner, request_id, request_hash, asset, decimals, amount, fee, network, address,
    required_confirmations)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING *
"""
# Before it is handed to the network, and by the first who decides.
_DECIDE_END: Final = """
UPDATE withdrawals SET ending = $2, problem = $3, decided_by = $4, decided_at = clock_timestamp(), decision_reason = $5,
    updated_at = clock_timestamp()
WHERE withdrawal_id = $1 AND status IN ('REQUESTED', 'AWAITING_APPROVAL', 'APPROVED') AND ending IS NULL RETURNING *
"""
_APPROVE: Final = """
UPDATE withdrawals SET status = 'APPROVED', decided_by = $2, decided_at = clock_timestamp(), decision_reason = $3,
    updated_at = clock_timestamp()
WHERE withdrawal_id = $1 AND status = 'AWAITING_APPROVAL' AND ending IS NULL RETURNING *
"""
_PENDING: Final = """
SELECT * FROM withdrawals WHERE status = 'AWAITING_APPROVAL' AND ending IS NULL AND number > $1 ORDER BY number LIMIT $2
"""
_UNDER_WAY: Final = """
SELECT * FROM withdrawals WHERE status IN ('REQUESTED', 'AWAITING_APPROVAL', 'APPROVED', 'SENDING', 'BROADCAST') AND number > $1
ORDER BY number LIMIT $2
"""
_PAGE: Final = """
SELECT * FROM withdrawals WHERE account = $1 AND ($2 = '' OR asset = $2) AND ($3 = 0 OR number < $3)
ORDER BY number DESC LIMIT $4
"""
_DUE: Final = """
SELECT withdrawal_id, number FROM withdrawals
WHERE (status IN ('REQUESTED', 'APPROVED', 'SENDING', 'BROADCAST') OR (status = 'AWAITING_APPROVAL' AND ending IS NOT NULL))
    AND number > $1 AND (status <> 'REQUESTED' OR created_at <= clock_timestamp() - $3::interval)
ORDER BY number LIMIT $2
"""
_COUNTS: Final = """
SELECT status, count(*) AS count, min(created_at) AS oldest FROM withdrawals
WHERE status IN ('REQUESTED', 'AWAITING_APPROVAL', 'APPROVED', 'SENDING', 'BROADCAST') GROUP BY status
"""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """One row; amounts are in smallest units. `ending` is how it ends, once that is decided."""

    number: int
    withdrawal_id: str
    account: str
    owner: str
    request_id: str
    request_hash: bytes
    asset: str
    decimals: int
    amount: int
    fee: int
    network: str
    address: str
    status: str
    ending: str | None
    problem: str
    refusal: str
    transaction_id: str
    confirmations: int
    required_confirmations: int
    decided_by: str
    hold_sequence: int
    final_sequence: int
    fee_sequence: int
    ending_asked_at: datetime | None
    fee_asked_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Any) -> Withdrawal:
        """From a row."""
        return cls(**{name: row[name] for name in cls.__slots__})

    @property
    def is_final(self) -> bool:
        """Whether it has come to its end."""
        return self.status in FINAL

    @property
    def hold_id(self) -> str:
        """What its hold is called in the engine; the ledger takes the network from it."""
        return f"withdrawal:{self.network}:{self.withdrawal_id}"

    @property
    def total(self) -> str:
        """What is held, as decimal text."""
        return format_units(self.amount + self.fee, self.decimals)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an account asks for. `user` is empty where only the account is known; `amount` is in smallest units."""

    account: str
    user: str
    request_id: str
    network: Network
    address: str
    amount: int

    @property
    def owner(self) -> str:
        """Whose limits it counts against."""
        return limits.owner_of(self.user, self.account)

    @property
    def hash(self) -> bytes:
        """What a repeat must have in common with the first."""
        return fingerprint(self.network.asset, self.network.network, self.address, str(self.amount))


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many withdrawals are in a state, and since when the oldest."""

    status: str
    count: int
    oldest: datetime


class Withdrawals:
    """All of them, in the database."""

    def __init__(self, database: Database, stops: Stops, tiers: limits.Tiers) -> None:
        self._database = database
        self._stops = stops
        self._tiers = tiers

    async def request(self, wanted: Wanted) -> Withdrawal:
        """Put it on record, once for its request id; its hold comes later.

        Raises ServiceError DUPLICATE_ID for another one of this id, INVALID_FIELD below the least amount, NUMBER_TOO_LARGE,
        WITHDRAWALS_STOPPED, ACCOUNT_FROZEN, ADDRESS_NOT_LISTED, ADDRESS_COOLING_OFF, KYC_REQUIRED, WITHDRAWAL_LIMIT.
        """
        async with self._database.connection() as connection:
            known = await _known(connection, wanted)
        if known is not None:
            return known
        _check_amount(wanted)
        if await self._stops.why():
            # Why is for operators: it may name people, accounts, or what was found in the books.
            raise ServiceError(ErrorReason.WITHDRAWALS_STOPPED)
        tier = await self._tiers.of(wanted.owner)
        network = wanted.network
        async with self._database.transaction() as connection:
            await limits.lock(connection, wanted.owner)
            facts = await connection.fetchrow(
                _FACTS,
                wanted.owner,
                wanted.account,
                wanted.request_id,
                network.asset,
                network.network,
                wanted.address,
            )
            assert facts is not None, "a row whatever is so"
            # The same request may have come in meanwhile, and stands in no way of itself.
            if facts["known"] and (known := await _known(connection, wanted)) is not None:
                return known
            if facts["frozen"]:
                reject(ErrorReason.ACCOUNT_FROZEN, account=wanted.account)
            address_list.check_usable(facts["usable_at"], facts["now"], network.asset, network.network, wanted.address)
            limits.check(tier, network.asset, network.decimals, int(facts["used"]), wanted.amount)
            row = await connection.fetchrow(
                _ADD,
                f"w{secrets.token_hex(10)}",
                wanted.account,
                wanted.owner,
                wanted.request_id,
                wanted.hash,
                network.asset,
                network.decimals,
                wanted.amount,
                network.fee,
                network.network,
                wanted.address,
                network.required_confirmations,
            )
        return Withdrawal.of(row)

    async def get(self, withdrawal_id: str, account: str | None = None) -> Withdrawal:
        """One, of this account where it is given. Raises ServiceError WITHDRAWAL_NOT_FOUND."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM withdrawals WHERE withdrawal_id = $1 AND ($2::text IS NULL OR account = $2)",
                withdrawal_id,
                account,
            )
        if row is None:
            reject(ErrorReason.WITHDRAWAL_NOT_FOUND, withdrawal_id=withdrawal_id)
        return Withdrawal.of(row)

    async def page(self, account: str, asset: str, before: int, limit: int) -> list[Withdrawal]:
        """The newest of an account below a number, 0 for all; "" for every asset."""
        async with self._database.connection() as connection:
            return [Withdrawal.of(row) for row in await connection.fetch(_PAGE, account, asset, before, limit)]

    async def pending(self, after: int, limit: int, *, under_way: bool = False) -> list[Withdrawal]:
        """Those that wait for an operator, or all that are under way; the oldest first, behind a number."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_UNDER_WAY if under_way else _PENDING, after, limit)
        return [Withdrawal.of(row) for row in rows]

    async def due(self, after: int, limit: int, age: timedelta) -> list[tuple[str, int]]:
        """(id, number) of those that something is to be done for, behind a number; before their hold, those of that age."""
        async with self._database.connection() as connection:
            return [(row["withdrawal_id"], row["number"]) for row in await connection.fetch(_DUE, after, limit, age)]

    async def counts(self) -> list[StateCount]:
        """By state, those that have not come to their end."""
        async with self._database.connection() as connection:
            return [StateCount(*row) for row in await connection.fetch(_COUNTS)]

    # --- decisions ---

    async def cancel(self, withdrawal_id: str, account: str) -> Withdrawal:
        """Its account wants it no more; cancelled already, it stays so. Raises ServiceError WITHDRAWAL_NOT_FOUND, WITHDRAWAL_UNDER_WAY."""
        await self.get(withdrawal_id, account)
        return await self._end(withdrawal_id, CANCELLED, "", account, "")

    async def reject(self, withdrawal_id: str, who: str, reason: str) -> Withdrawal:
        """An operator refuses it; refused already, it stays so. Raises ServiceError WITHDRAWAL_NOT_FOUND, WITHDRAWAL_UNDER_WAY."""
        return await self._end(withdrawal_id, REJECTED, reason, who, reason)

    async def approve(self, withdrawal_id: str, user: str, account: str, reason: str) -> Withdrawal:
        """An operator lets it go out; what is approved already stays so.

        Raises ServiceError WITHDRAWAL_NOT_FOUND, FOUR_EYES for who asked for it, NOT_READY while its hold is not known,
        WITHDRAWAL_UNDER_WAY for one that was cancelled or refused.
        """
        found = await self.get(withdrawal_id)
        if account == found.account or limits.owner_of(user, account) == found.owner:
            reject(ErrorReason.FOUR_EYES, withdrawal_id=withdrawal_id)
        if found.status == REQUESTED and found.ending is None:
            raise ServiceError(ErrorReason.NOT_READY, "its money is being held: ask again")
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_APPROVE, withdrawal_id, user or account, reason)
        found = Withdrawal.of(row) if row is not None else await self.get(withdrawal_id)
        if (found.ending or found.status) in {CANCELLED, REJECTED}:
            raise under_way(found)
        return found

    async def _end(self, withdrawal_id: str, ending: str, problem: str, who: str, reason: str) -> Withdrawal:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_DECIDE_END, withdrawal_id, ending, problem, who, reason)
        if row is not None:
            return Withdrawal.of(row)
        found = await self.get(withdrawal_id)
        if found.ending != ending:
            raise under_way(found)
        return found


def under_way(found: Withdrawal) -> ServiceError:
    """It is too late."""
    return ServiceError(
        ErrorReason.WITHDRAWAL_UNDER_WAY,
        metadata={"withdrawal_id": found.withdrawal_id, "status": found.ending or found.status},
    )


def refuse_where_held_was_refused(found: Withdrawal) -> None:
    """Raise the ServiceError with which the engine refused its hold, if it did: a repeat is answered so, too."""
    if found.refusal:
        raise ServiceError(
            ErrorReason.Value(found.refusal),
            metadata={"asset": found.asset, "withdrawal_id": found.withdrawal_id},
        )


async def refuse_frozen(connection: Connection, account: str) -> None:
    """Raise ServiceError ACCOUNT_FROZEN."""
    if await is_frozen(connection, account):
        reject(ErrorReason.ACCOUNT_FROZEN, account=account)


async def _known(connection: Connection, wanted: Wanted) -> Withdrawal | None:
    """What stands under its request id. Raises ServiceError DUPLICATE_ID where that is something else."""
    row = await connection.fetchrow(
        "SELECT * FROM withdrawals WHERE account = $1 AND request_id = $2", wanted.account, wanted.request_id
    )
    if row is not None and row["request_hash"] != wanted.hash:
        reject(ErrorReason.DUPLICATE_ID, request_id=wanted.request_id)
    return None if row is None else Withdrawal.of(row)


def _check_amount(wanted: Wanted) -> None:
    network = wanted.network
    if wanted.amount < network.least:
        least = format_units(network.least, network.decimals)
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"amount is less than the least withdrawal, {least} {network.asset}",
            metadata={"field": "amount", "least_withdrawal": least},
        )
    if wanted.amount + network.fee > MAX_UNITS:
        reject(ErrorReason.NUMBER_TOO_LARGE, field="amount")

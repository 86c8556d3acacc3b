"""Transfers between accounts of the exchange: put on record, then carried out by the engine's command, once.

REQUESTED -> DONE or REFUSED. What is REQUESTED is driven on until the engine's answer is known, by whoever asked for it and by
the worker, after any crash: the command's id makes it happen once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from exchange.domain.decimals import format_units
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.fields import fingerprint
from exchange.wallet.withdrawal_steps import REFUSALS
from exchange.wallet.withdrawals import refuse_frozen

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from exchange.runtime.database import Connection, Database
    from exchange.wallet.engine import Funds, Ledger
    from exchange.wallet.withdrawal_metrics import WithdrawalMetrics

REQUESTED: Final = "REQUESTED"
DONE: Final = "DONE"
REFUSED: Final = "REFUSED"

KNOWN: Final = "SELECT * FROM wallet_transfers WHERE account = $1 AND request_id = $2"
# No row: the account is frozen, or the same request came in at the same time.
_ADD: Final = """
INSERT INTO wallet_transfers (transfer_id, account, to_account, request_id, request_hash, asset, decimals, amount)
SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE NOT EXISTS (SELECT FROM wallet_freezes WHERE account = $2 AND frozen)
ON CONFLICT (account, request_id) DO NOTHING RETURNING *
"""
_END: Final = """
UPDATE wallet_transfers SET status = $2, sequence = $3, refusal = $4, problem = $5, updated_at = clock_timestamp()
WHERE number = $1 AND status = 'REQUESTED' RETURNING *
"""
_DUE: Final = """
SELECT * FROM wallet_transfers WHERE status = 'REQUESTED' AND number > $1 AND created_at <= clock_timestamp() - $3::interval
ORDER BY number LIMIT $2
"""
_PAGE: Final = """
SELECT * FROM (
    (SELECT * FROM wallet_transfers WHERE account = $1 AND status = 'DONE' AND ($2 = 0 OR number < $2)
        ORDER BY number DESC LIMIT $3)
    UNION ALL
    (SELECT * FROM wallet_transfers WHERE to_account = $1 AND status = 'DONE' AND ($2 = 0 OR number < $2)
        ORDER BY number DESC LIMIT $3)
) both_ways ORDER BY number DESC LIMIT $3
"""


class Accounts(Protocol):
    """Who has an account at the exchange."""

    async def exists(self, account: str) -> bool:
        """Whether money that is sent there has an owner. Raises ServiceError where nobody can say now."""
        ...


@dataclass(frozen=True, slots=True)
class Transfer:
    """One row; `amount` is in smallest units."""

    number: int
    transfer_id: str
    account: str
    to_account: str
    request_id: str
    request_hash: bytes
    asset: str
    decimals: int
    amount: int
    status: str
    refusal: str
    problem: str
    sequence: int
    created_at: datetime

    @classmethod
    def of(cls, row: Any) -> Transfer:
        """From a row."""
        return cls(**{name: row[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Order:
    """What an account asks for; `amount` is in smallest units."""

    account: str
    to_account: str
    asset: str
    decimals: int
    amount: int
    request_id: str

    @property
    def hash(self) -> bytes:
        """What a repeat must have in common with the first."""
        return fingerprint(self.to_account, self.asset, str(self.amount))


class Transfers:
    """All of them, in the database; `funds` carries them out."""

    def __init__(
        self, *, database: Database, funds: Funds, ledger: Ledger, accounts: Accounts, metrics: WithdrawalMetrics
    ) -> None:
        self._database = database
        self._funds = funds
        self._ledger = ledger
        self._accounts = accounts
        self._metrics = metrics

    async def create(self, order: Order) -> Transfer:
        """Carry it out, once for its request id.

        Raises ServiceError DUPLICATE_ID for another one of this id, INVALID_FIELD for one's own account and one that nobody has,
        ACCOUNT_FROZEN, and what the engine refuses with; where the engine's answer is not known, it is carried out later, and a
        repeat tells.
        """
        async with self._database.connection() as connection:
            found = await _known(connection, order)
        if found is None:
            found = await self._add(order)
        found = await self.carry_out(found)
        if found.status == REFUSED:
            raise ServiceError(ErrorReason.Value(found.refusal), metadata={"asset": found.asset})
        return found

    async def _add(self, order: Order) -> Transfer:
        if order.to_account == order.account or not await self._accounts.exists(order.to_account):
            raise ServiceError(
                ErrorReason.INVALID_FIELD,
                "to_account must be another account of the exchange",
                metadata={"field": "to_account", "value": order.to_account},
            )
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                _ADD,
                f"t{secrets.token_hex(10)}",
                order.account,
                order.to_account,
                order.request_id,
                order.hash,
                order.asset,
                order.decimals,
                order.amount,
            )
            if row is not None:
                return Transfer.of(row)
            found = await _known(connection, order)
            if found is None:
                await refuse_frozen(connection, order.account)
                raise ServiceError(ErrorReason.NOT_READY, "the account was frozen until this moment: ask again")
        return found

    async def carry_out(self, found: Transfer) -> Transfer:
        """To its end, DONE or REFUSED. Raises ServiceError where the engine's answer is not known."""
        return await self._ask(found) if found.status == REQUESTED else found

    async def due(self, after: int, limit: int, age: timedelta) -> list[Transfer]:
        """Those whose end is not known though they are so old, behind a number."""
        async with self._database.connection() as connection:
            return [Transfer.of(row) for row in await connection.fetch(_DUE, after, limit, age)]

    async def page(self, account: str, before: int, limit: int) -> list[Transfer]:
        """The newest that an account has sent and received, below a number, 0 for all."""
        async with self._database.connection() as connection:
            return [Transfer.of(row) for row in await connection.fetch(_PAGE, account, before, limit)]

    async def _ask(self, found: Transfer) -> Transfer:
        request_id = f"transfer:{found.transfer_id}"
        amount = format_units(found.amount, found.decimals)
        try:
            sequence = await self._funds.transfer(
                found.account, found.to_account, found.asset, amount, request_id, "transfer", found.created_at
            )
        except ServiceError as error:
            if error.reason in REFUSALS:
                return await self._end(found, REFUSED, 0, error)
            if error.reason != ErrorReason.REQUEST_TOO_OLD:
                raise
            # The engine cannot tell a repeat any more: the ledger can. What it does not have cannot happen any more.
            known = await self._ledger.transferred(found.account, found.asset, request_id, found.created_at)
            if known is None:
                raise
            if known == 0:
                return await self._end(found, REFUSED, 0, error)
            sequence = known
        return await self._end(found, DONE, sequence, None)

    async def _end(self, found: Transfer, status: str, sequence: int, error: ServiceError | None) -> Transfer:
        refusal, problem = ("", "") if error is None else (error.reason_name, str(error))
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_END, found.number, status, sequence, refusal, problem)
            if row is None:
                # Somebody else has driven it on meanwhile.
                return Transfer.of(
                    await connection.fetchrow("SELECT * FROM wallet_transfers WHERE number = $1", found.number)
                )
        self._metrics.transferred(status)
        return Transfer.of(row)


async def _known(connection: Connection, order: Order) -> Transfer | None:
    """What stands under its request id. Raises ServiceError DUPLICATE_ID where that is something else."""
    row = await connection.fetchrow(KNOWN, order.account, order.request_id)
    if row is not None and row["request_hash"] != order.hash:
        reject(ErrorReason.DUPLICATE_ID, request_id=order.request_id)
    return None if row is None else Transfer.of(row)

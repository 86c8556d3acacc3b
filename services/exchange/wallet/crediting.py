"""CONFIRMED -> CREDITED: the engine is told, and what it said is written."""

from __future__ import annotations

from typing import Any, Final

from exchange.domain.decimals import format_units
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.wallet.deposits import Deposit
from exchange.wallet.rows import DepositDriver, NotYet

SUSPENSE: Final = "$suspense"

# Of the same output: what earlier appearances have lost, less what was made good since. An earlier one must be at its end.
_ASK: Final = """
WITH earlier AS (
    SELECT coalesce(sum(e.lost - e.made_good), 0) AS owed,
        count(*) FILTER (WHERE NOT (e.status = 'ORPHANED' OR e.reversal IS NOT DISTINCT FROM 'DONE')) AS open
    FROM wallet_deposits e JOIN wallet_deposits d USING (network, transaction_id, output)
    WHERE d.deposit_id = $1 AND e.appearance < d.appearance
)
UPDATE wallet_deposits SET
    made_good = CASE WHEN credit_asked_at IS NULL THEN least(amount, earlier.owed)::bigint ELSE made_good END,
    credit_asked_at = coalesce(credit_asked_at, clock_timestamp())
FROM earlier WHERE deposit_id = $1 AND status = 'CONFIRMED' AND (credit_asked_at IS NOT NULL OR earlier.open = 0)
RETURNING wallet_deposits.*
"""
_ACCOUNT_CREDITED: Final = """
UPDATE wallet_deposits SET sequence = $2 WHERE deposit_id = $1 AND status = 'CONFIRMED' RETURNING *
"""
_CREDITED: Final = """
UPDATE wallet_deposits SET status = 'CREDITED', sequence = coalesce(sequence, $2), credited_at = clock_timestamp(), problem = NULL,
    attempts = 0, next_at = clock_timestamp()
WHERE deposit_id = $1 AND status = 'CONFIRMED' RETURNING *
"""


class Crediting(DepositDriver):
    """Write that it is asked, ask, write the answer: after a crash at any point the same is asked again, with the same ids."""

    kind = "CREDIT"
    name = "credit"

    async def step(self, deposit_id: int) -> None:
        """Credit one. Raises ServiceError, NotYet."""
        row: Any = await self._moved(_ASK, deposit_id)
        if row is None:
            raise NotYet("an earlier appearance of this transaction is not at its end")
        deposit = Deposit.of(row)
        sequence = deposit.sequence
        own = deposit.amount - deposit.made_good
        if own and sequence is None:
            sequence = await self._deposit(deposit, deposit.account, own, f"deposit:{deposit.reference}")
            if sequence is not None and deposit.made_good:
                # By itself: the other half is asked with a time of its own.
                await self._moved(_ACCOUNT_CREDITED, deposit_id, sequence)
        if deposit.made_good and (sequence is not None or not own):
            request_id = f"deposit:{deposit.reference}.made-good"
            made_good = await self._deposit(deposit, SUSPENSE, deposit.made_good, request_id)
            sequence = None if made_good is None else sequence or made_good
        if sequence is not None:
            if await self._moved(_CREDITED, deposit_id, sequence) is not None:
                self._metrics.credited.inc()
            self._log.info("deposit credited", deposit=deposit_id, account=deposit.account, sequence=sequence)

    async def _deposit(self, deposit: Deposit, account: str, units: int, request_id: str) -> int | None:
        """The engine's sequence; None where all has to be asked anew later."""
        amount = format_units(units, deposit.decimals)
        reason = f"{deposit.network} {deposit.transaction_id}"[:200]
        try:
            return await self._funds.deposit(
                account, deposit.asset, amount, request_id, reason, asked_at=deposit.credit_asked_at
            )
        except ServiceError as error:
            if error.reason != ErrorReason.REQUEST_TOO_OLD:
                raise
        # The engine no longer knows whether it did: the ledger does.
        found = await self._ledger.credited(account, deposit.asset, request_id, deposit.credit_asked_at)
        if found is None:
            raise NotYet("only the ledger can tell whether this was credited, and it cannot yet")
        if found:
            return found
        await self._moved(
            "UPDATE wallet_deposits SET credit_asked_at = clock_timestamp() WHERE deposit_id = $1 AND status = 'CONFIRMED'"
            " AND credit_asked_at = $2 RETURNING *",
            deposit.deposit_id,
            deposit.credit_asked_at,
        )
        return None

"""CREDITED -> REVERSED: the network took back what was credited. What the account still has is taken, the rest is a loss.

HOLD (what is available is set aside) -> SETTLE (it has left) -> LOSS (settlement records the rest) -> DONE. The account is frozen
in the same transaction in which it begins.
"""

from __future__ import annotations

from typing import Any, Final

from exchange.domain.decimals import format_units, parse_units
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.wallet import freezes
from exchange.wallet.deposits import CREDITED, REVERSED, Deposit
from exchange.wallet.rows import DepositDriver

WHO: Final = "wallet"
HOLD: Final = "HOLD"
SETTLE: Final = "SETTLE"
LOSS: Final = "LOSS"
DONE: Final = "DONE"

_BEGIN: Final = """
UPDATE wallet_deposits SET status = 'REVERSED', reversal = 'HOLD' WHERE deposit_id = $1 AND status = 'CREDITED' AND vanished
RETURNING *
"""
_ATTEMPT: Final = """
UPDATE wallet_deposits SET hold_attempt = hold_attempt + 1, hold_amount = $2
WHERE deposit_id = $1 AND reversal = 'HOLD' AND hold_attempt = $3 AND hold_amount = 0 RETURNING *
"""
_GAVE_UP: Final = """
UPDATE wallet_deposits SET hold_amount = 0 WHERE deposit_id = $1 AND reversal = 'HOLD' AND hold_attempt = $2 RETURNING *
"""
_NOTHING_LEFT: Final = """
UPDATE wallet_deposits SET reversal = 'LOSS', lost = amount, problem = NULL, attempts = 0
WHERE deposit_id = $1 AND reversal = 'HOLD' AND hold_amount = 0 RETURNING *
"""
_HELD: Final = """
UPDATE wallet_deposits SET reversal = 'SETTLE', problem = NULL, attempts = 0
WHERE deposit_id = $1 AND reversal = 'HOLD' AND hold_attempt = $2 RETURNING *
"""
_SETTLED: Final = """
UPDATE wallet_deposits SET recovered = hold_amount, lost = amount - hold_amount, problem = NULL, attempts = 0,
    reversal = CASE WHEN hold_amount = amount THEN 'DONE' ELSE 'LOSS' END
WHERE deposit_id = $1 AND reversal = 'SETTLE' RETURNING *
"""
_LOST: Final = """
UPDATE wallet_deposits SET reversal = 'DONE', problem = NULL, attempts = 0 WHERE deposit_id = $1 AND reversal = 'LOSS' RETURNING *
"""
_READ: Final = "SELECT * FROM wallet_deposits WHERE deposit_id = $1"


class Reversals(DepositDriver):
    """Each step writes what it is about to do, does it by an id of its own, and writes the outcome."""

    kind = "REVERSE"
    name = "reverse"

    async def step(self, deposit_id: int) -> None:
        """Take one to its end. Raises ServiceError where something is away."""
        row: Any = await self._moved(_READ, deposit_id)
        while row is not None:
            deposit = Deposit.of(row)
            if deposit.status == CREDITED:
                row = await self._begin(deposit)
            elif deposit.reversal == HOLD:
                row = await (self._hold(deposit) if deposit.hold_amount else self._attempt(deposit))
            elif deposit.reversal == SETTLE:
                row = await self._settle(deposit)
            elif deposit.reversal == LOSS:
                row = await self._lose(deposit)
            else:
                assert (deposit.status, deposit.reversal) == (REVERSED, DONE), "nothing else is driven"
                return

    async def _begin(self, deposit: Deposit) -> Any:
        why = f"deposit {deposit.deposit_id} vanished from {deposit.network} after it was credited"
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_BEGIN, deposit.deposit_id)
            if row is not None:
                await freezes.freeze(connection, deposit.account, why, WHO)
        if row is not None:
            self._metrics.reversed.inc()
            self._log.warning("an account is frozen", account=deposit.account, why=why)
        return row

    async def _attempt(self, deposit: Deposit) -> Any:
        """Say how much of it will be taken: what is there, and no more than the account was given."""
        found = await self._funds.available(deposit.account, deposit.asset, deposit.sequence or 0)
        take = min(parse_units(found, deposit.decimals), deposit.amount - deposit.made_good)
        if not take:
            return await self._moved(_NOTHING_LEFT, deposit.deposit_id)
        return await self._moved(_ATTEMPT, deposit.deposit_id, take, deposit.hold_attempt)

    async def _hold(self, deposit: Deposit) -> Any:
        amount = format_units(deposit.hold_amount, deposit.decimals)
        try:
            await self._funds.hold(deposit.account, deposit.asset, amount, _hold_id(deposit), _why(deposit))
        except ServiceError as error:
            if error.reason == ErrorReason.INSUFFICIENT_FUNDS:
                # It was traded away meanwhile. This id is refused for ever; the next attempt has another.
                return await self._moved(_GAVE_UP, deposit.deposit_id, deposit.hold_attempt)
            # It stands there already, from so long ago that the engine has forgotten the id.
            if error.reason != ErrorReason.ALREADY_EXISTS:
                raise
        return await self._moved(_HELD, deposit.deposit_id, deposit.hold_attempt)

    async def _settle(self, deposit: Deposit) -> Any:
        hold_id = _hold_id(deposit)
        try:
            await self._funds.settle(deposit.account, hold_id, f"settle:{hold_id}", _why(deposit))
        except ServiceError as error:
            # It was there, and nobody else settles it: an earlier call did, so long ago that the engine has forgotten the id.
            if error.reason != ErrorReason.HOLD_NOT_FOUND:
                raise
        return await self._moved(_SETTLED, deposit.deposit_id)

    async def _lose(self, deposit: Deposit) -> Any:
        await self._ledger.record_loss(
            f"custody:{deposit.network}",
            deposit.asset,
            format_units(deposit.lost, deposit.decimals),
            f"loss:{deposit.reference}",
            _why(deposit),
        )
        return await self._moved(_LOST, deposit.deposit_id)


def _hold_id(deposit: Deposit) -> str:
    return f"reversal:{deposit.reference}.{deposit.hold_attempt}"


def _why(deposit: Deposit) -> str:
    return f"{deposit.network} took {deposit.transaction_id} back"[:200]

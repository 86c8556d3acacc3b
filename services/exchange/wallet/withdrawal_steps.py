"""The steps of a withdrawal: what is asked of engine and network, and what is written down of it.

Each step asks something that happens once however often it is asked, and then moves the row on from the state in which it
found it. So it may be broken off anywhere, and made again by anybody, also by two at the same time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from exchange.domain.decimals import format_units
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.wallet.approval import BY_POLICY
from exchange.wallet.connector import ConnectorAway, Refused
from exchange.wallet.freezes import is_frozen
from exchange.wallet.withdrawals import (
    APPROVED,
    AWAITING_APPROVAL,
    BROADCAST,
    REJECTED,
    REQUESTED,
    RETURNED,
    SENDING,
    SETTLED,
    Withdrawal,
    Withdrawals,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exchange.runtime.database import Database
    from exchange.wallet.approval import ApprovalPolicy
    from exchange.wallet.connector import Connector, Sent
    from exchange.wallet.engine import Funds, Ledger
    from exchange.wallet.stops import Stops
    from exchange.wallet.withdrawal_metrics import WithdrawalMetrics

FEE_ACCOUNT: Final = "$wallet-fees"

# With these the engine says that it will not, and says it again to a repeat.
REFUSALS: Final = frozenset(
    {
        ErrorReason.INSUFFICIENT_FUNDS,
        ErrorReason.UNKNOWN_ASSET,
        ErrorReason.BALANCE_LIMIT,
        ErrorReason.TOO_MANY_OBJECTS,
        ErrorReason.NUMBER_TOO_LARGE,
        ErrorReason.DUPLICATE_ID,
        ErrorReason.INVALID_FIELD,
    }
)


class WithdrawalSteps:
    """Drives withdrawals on. `connectors` are by network."""

    def __init__(
        self,
        *,
        database: Database,
        withdrawals: Withdrawals,
        stops: Stops,
        policy: ApprovalPolicy,
        funds: Funds,
        ledger: Ledger,
        connectors: Mapping[str, Connector],
        metrics: WithdrawalMetrics,
    ) -> None:
        self._database = database
        self._withdrawals = withdrawals
        self._stops = stops
        self._policy = policy
        self._funds = funds
        self._ledger = ledger
        self._connectors = connectors
        self._metrics = metrics
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("withdrawals")

    async def drive(self, withdrawal_id: str) -> Withdrawal:
        """As far as it goes now. Raises ServiceError and ConnectorAway where a step could not be made: it is made again later."""
        found = await self._withdrawals.get(withdrawal_id)
        while True:
            moved = await self.step(found)
            if moved is None:
                return found
            found = moved

    async def hold(self, found: Withdrawal) -> Withdrawal:
        """Only the first step, for who waits for its outcome. Raises ServiceError where that is not known."""
        return await self._hold(found) if found.status == REQUESTED else found

    async def end(self, found: Withdrawal) -> Withdrawal:
        """Carry out the end that was decided, for who waits for it. Raises ServiceError where its outcome is not known."""
        while not found.is_final:
            found = await (self._hold(found) if found.status == REQUESTED else self._release(found))
        return found

    async def step(self, found: Withdrawal) -> Withdrawal | None:
        """One step; the row after it, None where there is nothing to do now."""
        if found.is_final:
            return None
        if found.status == REQUESTED:
            return await self._hold(found)
        if found.ending == SETTLED:
            return await (self._settle(found) if found.fee_asked_at is None else self._take_fee(found))
        if found.ending is not None:
            return await self._release(found)
        if found.status == APPROVED:
            return await self._hand_over(found)
        if found.status == SENDING:
            return await self._send(found)
        if found.status == BROADCAST:
            return await self._confirm(found)
        return None

    # --- the engine ---

    async def _hold(self, found: Withdrawal) -> Withdrawal:
        try:
            sequence = await self._funds.hold(found.account, found.asset, found.total, found.hold_id, "withdrawal")
        except ServiceError as error:
            if error.reason in REFUSALS:
                return await self._move(
                    found, "status = $3, refusal = $4, problem = $5", REJECTED, error.reason_name, str(error)
                )
            if error.reason != ErrorReason.ALREADY_EXISTS:
                raise
            # It was held so long ago that the engine has forgotten the request, though not the hold.
            sequence = 0
        if self._policy.needs_operator(found.asset, found.amount, found.decimals):
            return await self._move(found, "status = $3, hold_sequence = $4", AWAITING_APPROVAL, sequence)
        return await self._move(
            found,
            "status = $3, hold_sequence = $4, decided_at = coalesce(decided_at, clock_timestamp()),"
            " decided_by = CASE decided_by WHEN '' THEN $5 ELSE decided_by END",
            APPROVED,
            sequence,
            BY_POLICY,
        )

    async def _release(self, found: Withdrawal) -> Withdrawal:
        asked, problem = await self._ask_end(found), found.problem
        try:
            sequence = await self._funds.release(
                found.account, found.hold_id, f"release:{found.hold_id}", str(found.ending)
            )
        except ServiceError as error:
            sequence, problem = self._gone(asked, error)
            problem = problem or asked.problem
        return await self._move(
            asked, "status = $3, final_sequence = $4, problem = $5", asked.ending, sequence, problem
        )

    async def _settle(self, found: Withdrawal) -> Withdrawal:
        asked, problem = await self._ask_end(found), ""
        try:
            sequence = await self._funds.settle(found.account, found.hold_id, f"settle:{found.hold_id}", "withdrawal")
        except ServiceError as error:
            sequence, problem = self._gone(asked, error)
        if found.fee == 0:
            return await self._move(asked, "status = $3, final_sequence = $4, problem = $5", SETTLED, sequence, problem)
        return await self._move(
            asked, "fee_asked_at = $3, final_sequence = $4, problem = $5", datetime.now(UTC), sequence, problem
        )

    async def _ask_end(self, found: Withdrawal) -> Withdrawal:
        """Write down that the engine is asked to end the hold. The row as it was before: had it been asked already?"""
        if found.ending_asked_at is None:
            await self._move(found, "ending_asked_at = $3", datetime.now(UTC))
        return found

    def _gone(self, asked: Withdrawal, error: ServiceError) -> tuple[int, str]:
        """(sequence, problem) where the engine does not know the hold any more; raises the error if it says something else."""
        if error.reason != ErrorReason.HOLD_NOT_FOUND:
            raise error
        if asked.ending_asked_at is not None:
            # It was ended so long ago that the engine has forgotten the request.
            return 0, ""
        self._log.error("the hold of a withdrawal was ended by somebody else", withdrawal=asked.withdrawal_id)
        return 0, "its hold was ended by somebody else"

    async def _take_fee(self, found: Withdrawal) -> Withdrawal:
        request_id = f"withdrawal-fee:{found.network}:{found.withdrawal_id}"
        fee = format_units(found.fee, found.decimals)
        try:
            sequence = await self._funds.deposit(
                FEE_ACCOUNT, found.asset, fee, request_id, "withdrawal fee", found.fee_asked_at
            )
        except ServiceError as error:
            if error.reason != ErrorReason.REQUEST_TOO_OLD:
                raise
            # The engine cannot tell a repeat any more: the ledger can.
            known = await self._ledger.credited(FEE_ACCOUNT, found.asset, request_id, found.fee_asked_at)
            if known is None:
                raise
            if known == 0:
                return await self._move(found, "fee_asked_at = $3", datetime.now(UTC))
            sequence = known
        return await self._move(found, "status = $3, fee_sequence = $4", SETTLED, sequence)

    # --- the network ---

    async def _hand_over(self, found: Withdrawal) -> Withdrawal | None:
        """From here on it cannot be cancelled: written before the network is asked for the first time."""
        if await self._may_not_go(found):
            return None
        return await self._move(found, "status = $3", SENDING)

    async def _send(self, found: Withdrawal) -> Withdrawal | None:
        connector = self._connector(found)
        outcome = await connector.outcome(found.withdrawal_id)
        if outcome is None:
            # It may have been stopped or frozen between the steps.
            if await self._may_not_go(found):
                return None
            outcome = await connector.send(found.withdrawal_id, found.asset, found.address, found.amount)
        if isinstance(outcome, Refused):
            return await self._return(found, outcome)
        return await self._move(
            found,
            "status = $3, transaction_id = $4, confirmations = $5",
            BROADCAST,
            outcome.transaction_id,
            outcome.confirmations,
        )

    async def _confirm(self, found: Withdrawal) -> Withdrawal | None:
        outcome = await self._connector(found).outcome(found.withdrawal_id)
        if outcome is None:
            self._log.error("the network does not know what it has sent", withdrawal=found.withdrawal_id)
            return None
        if isinstance(outcome, Refused):
            return await self._return(found, outcome)
        return await self._confirmed(found, outcome)

    async def _confirmed(self, found: Withdrawal, sent: Sent) -> Withdrawal | None:
        changes, values = "transaction_id = $3, confirmations = $4", (sent.transaction_id, sent.confirmations)
        if sent.confirmations >= found.required_confirmations:
            return await self._move(found, f"{changes}, ending = $5", *values, SETTLED)
        if values != (found.transaction_id, found.confirmations):
            await self._move(found, changes, *values)
        return None

    async def _return(self, found: Withdrawal, refused: Refused) -> Withdrawal:
        return await self._move(found, "ending = $3, problem = $4", RETURNED, f"refused by the network: {refused.why}")

    async def _may_not_go(self, found: Withdrawal) -> bool:
        if await self._stops.why():
            return True
        async with self._database.connection() as connection:
            return await is_frozen(connection, found.account)

    def _connector(self, found: Withdrawal) -> Connector:
        connector = self._connectors.get(found.network)
        if connector is None:
            raise ConnectorAway(f"no connector for {found.network}")
        return connector

    # --- the row ---

    async def _move(self, found: Withdrawal, changes: str, *values: Any) -> Withdrawal:
        """Write a step down, unless somebody else has moved the row meanwhile; the row as it is now."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                f"UPDATE withdrawals SET {changes}, updated_at = clock_timestamp()"  # noqa: S608 - texts of this module
                " WHERE number = $1 AND status = $2 AND ending IS NOT DISTINCT FROM "
                f"${len(values) + 3} AND fee_asked_at IS NOT DISTINCT FROM ${len(values) + 4} RETURNING *",
                found.number,
                found.status,
                *values,
                found.ending,
                found.fee_asked_at,
            )
        if row is None:
            return await self._withdrawals.get(found.withdrawal_id)
        moved = Withdrawal.of(row)
        if moved.status != found.status:
            self._metrics.moved(moved.status)
            self._log.info("a withdrawal moves on", withdrawal=moved.withdrawal_id, status=moved.status)
        return moved

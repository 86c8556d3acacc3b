"""The part of WalletAdminService that is about withdrawals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, reject
from exchange.runtime.fields import caller, reason_text
from exchange.runtime.request import request_context
from exchange.wallet.service.outgoing_messages import withdrawal_message
from pincex.wallet.v1 import wallet_admin_service_pb2 as pb

if TYPE_CHECKING:
    from exchange.wallet.stops import Stops
    from exchange.wallet.withdrawal_steps import WithdrawalSteps
    from exchange.wallet.withdrawals import Withdrawals
    from pincex.wallet.v1 import types_pb2


class WithdrawalOperations:
    """What operators decide."""

    def __init__(self, withdrawals: Withdrawals, steps: WithdrawalSteps, stops: Stops) -> None:
        self._withdrawals = withdrawals
        self._steps = steps
        self._stops = stops

    async def pending(self, request: pb.ListPendingWithdrawalsRequest) -> pb.ListPendingWithdrawalsResponse:
        """The oldest first."""
        size = paging.page_size(request.page_size)
        filters = ("pending withdrawals", request.under_way)
        after = paging.number_position(request.page_token, *filters)
        found = await self._withdrawals.pending(after, size + 1, under_way=request.under_way)
        response = pb.ListPendingWithdrawalsResponse(withdrawals=map(withdrawal_message, found[:size]))
        if len(found) > size:
            response.next_page_token = paging.make_token(str(found[size - 1].number), *filters)
        return response

    async def approve(self, request: pb.ApproveWithdrawalRequest) -> types_pb2.Withdrawal:
        """Lets it go out; the worker hands it to the network."""
        name, reason = _id(request.withdrawal_id), reason_text(request.reason)
        principal = request_context().principal
        return withdrawal_message(await self._withdrawals.approve(name, principal.user, principal.account, reason))

    async def reject(self, request: pb.RejectWithdrawalRequest) -> types_pb2.Withdrawal:
        """The answer waits until its money is available again."""
        name, reason = _id(request.withdrawal_id), reason_text(request.reason, required=True)
        found = await self._withdrawals.reject(name, caller(), reason)
        return withdrawal_message(await self._steps.end(found))

    async def stop(self, request: pb.StopWithdrawalsRequest) -> None:
        """Nothing goes out any more."""
        await self._stops.stop(reason_text(request.reason, required=True), caller())

    async def resume(self, request: pb.ResumeWithdrawalsRequest) -> None:
        """Lifts the operator's stop."""
        await self._stops.resume(reason_text(request.reason, required=True), caller())


def _id(withdrawal_id: str) -> str:
    if not withdrawal_id:
        reject(ErrorReason.FIELD_REQUIRED, field="withdrawal_id")
    return withdrawal_id

"""WalletAdminService: each call is answered by the part that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pincex.wallet.v1 import types_pb2, wallet_admin_service_pb2_grpc
from pincex.wallet.v1 import wallet_admin_service_pb2 as pb

if TYPE_CHECKING:
    from exchange.wallet.service.operations import Operations
    from exchange.wallet.service.withdrawal_operations import WithdrawalOperations


class WalletAdminService(wallet_admin_service_pb2_grpc.WalletAdminServiceServicer):
    """See `proto/pincex/wallet/v1/wallet_admin_service.proto`. The guard has checked roles, and writes the audit record."""

    def __init__(self, operations: Operations, withdrawals: WithdrawalOperations) -> None:
        self._operations = operations
        self._withdrawals = withdrawals

    # --- withdrawals ---

    async def ListPendingWithdrawals(
        self, request: pb.ListPendingWithdrawalsRequest, context: Any
    ) -> pb.ListPendingWithdrawalsResponse:
        """The oldest first."""
        return await self._withdrawals.pending(request)

    async def ApproveWithdrawal(self, request: pb.ApproveWithdrawalRequest, context: Any) -> types_pb2.Withdrawal:
        """Lets it go out."""
        return await self._withdrawals.approve(request)

    async def RejectWithdrawal(self, request: pb.RejectWithdrawalRequest, context: Any) -> types_pb2.Withdrawal:
        """Refuses it."""
        return await self._withdrawals.reject(request)

    async def StopWithdrawals(self, request: pb.StopWithdrawalsRequest, context: Any) -> pb.WalletStatus:
        """Nothing goes out any more."""
        await self._withdrawals.stop(request)
        return await self._operations.status()

    async def ResumeWithdrawals(self, request: pb.ResumeWithdrawalsRequest, context: Any) -> pb.WalletStatus:
        """Lifts the operator's stop."""
        await self._withdrawals.resume(request)
        return await self._operations.status()

    # --- the wallet ---

    async def GetWalletStatus(self, request: pb.GetWalletStatusRequest, context: Any) -> pb.WalletStatus:
        """How it stands."""
        return await self._operations.status()

    async def FreezeAccount(self, request: pb.FreezeAccountRequest, context: Any) -> pb.AccountFreeze:
        """Nothing goes out of it."""
        return await self._operations.freeze(request)

    async def ThawAccount(self, request: pb.ThawAccountRequest, context: Any) -> pb.AccountFreeze:
        """Lifts it."""
        return await self._operations.thaw(request)

    # --- the simulated network ---

    async def SimulateDeposit(self, request: pb.SimulateDepositRequest, context: Any) -> pb.SimulateDepositResponse:
        """One appears."""
        return await self._operations.simulate_deposit(request)

    async def SimulateReorg(self, request: pb.SimulateReorgRequest, context: Any) -> pb.SimulateReorgResponse:
        """One disappears."""
        return await self._operations.simulate_reorg(request)

"""WalletService: each call is answered by the part that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pincex.wallet.v1 import types_pb2, wallet_service_pb2_grpc
from pincex.wallet.v1 import wallet_service_pb2 as pb

if TYPE_CHECKING:
    from exchange.wallet.service.address_list import AddressListCalls
    from exchange.wallet.service.deposits import DepositCalls
    from exchange.wallet.service.transfers import TransferCalls
    from exchange.wallet.service.withdrawals import WithdrawalCalls


class WalletService(wallet_service_pb2_grpc.WalletServiceServicer):
    """See `proto/pincex/wallet/v1/wallet_service.proto`. The guard has checked scopes, and writes the audit record."""

    def __init__(
        self,
        deposits: DepositCalls,
        withdrawals: WithdrawalCalls,
        addresses: AddressListCalls,
        transfers: TransferCalls,
    ) -> None:
        self._deposits = deposits
        self._withdrawals = withdrawals
        self._addresses = addresses
        self._transfers = transfers

    # --- in ---

    async def ListNetworks(self, request: pb.ListNetworksRequest, context: Any) -> pb.ListNetworksResponse:
        """All of them."""
        return await self._deposits.list_networks()

    async def GetDepositAddress(self, request: pb.GetDepositAddressRequest, context: Any) -> pb.DepositAddress:
        """Made at the first call."""
        return await self._deposits.deposit_address(request)

    async def ListDeposits(self, request: pb.ListDepositsRequest, context: Any) -> pb.ListDepositsResponse:
        """The newest first."""
        return await self._deposits.list_deposits(request)

    # --- out ---

    async def CreateWithdrawal(self, request: pb.CreateWithdrawalRequest, context: Any) -> types_pb2.Withdrawal:
        """Once for its request id."""
        return await self._withdrawals.create(request)

    async def GetWithdrawal(self, request: pb.GetWithdrawalRequest, context: Any) -> types_pb2.Withdrawal:
        """One."""
        return await self._withdrawals.get(request)

    async def ListWithdrawals(self, request: pb.ListWithdrawalsRequest, context: Any) -> pb.ListWithdrawalsResponse:
        """The newest first."""
        return await self._withdrawals.list(request)

    async def CancelWithdrawal(self, request: pb.CancelWithdrawalRequest, context: Any) -> types_pb2.Withdrawal:
        """While it was not handed to the network."""
        return await self._withdrawals.cancel(request)

    async def GetWithdrawalLimits(self, request: pb.GetWithdrawalLimitsRequest, context: Any) -> pb.WithdrawalLimits:
        """Of the caller."""
        return await self._withdrawals.limits(request)

    # --- the list of addresses ---

    async def AddWithdrawalAddress(
        self, request: pb.AddWithdrawalAddressRequest, context: Any
    ) -> types_pb2.WithdrawalAddress:
        """Usable after a while."""
        return await self._addresses.add(request)

    async def ListWithdrawalAddresses(
        self, request: pb.ListWithdrawalAddressesRequest, context: Any
    ) -> pb.ListWithdrawalAddressesResponse:
        """By asset and label."""
        return await self._addresses.list(request)

    async def RemoveWithdrawalAddress(
        self, request: pb.RemoveWithdrawalAddressRequest, context: Any
    ) -> pb.RemoveWithdrawalAddressResponse:
        """Off the list."""
        return await self._addresses.remove(request)

    # --- between accounts ---

    async def CreateTransfer(self, request: pb.CreateTransferRequest, context: Any) -> types_pb2.Transfer:
        """At once."""
        return await self._transfers.create(request)

    async def ListTransfers(self, request: pb.ListTransfersRequest, context: Any) -> pb.ListTransfersResponse:
        """Sent and received."""
        return await self._transfers.list(request)

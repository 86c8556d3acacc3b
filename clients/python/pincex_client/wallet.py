"""`ExchangeClient.wallet`, and `ExchangeClient.admin.wallet`: money in and out."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import grpc.aio

from pincex.wallet.v1 import (
    wallet_admin_service_pb2,
    wallet_admin_service_pb2_grpc,
    wallet_service_pb2_grpc,
)
from pincex.wallet.v1 import wallet_service_pb2 as wire
from pincex_client.convert import from_wire, plain_decimal
from pincex_client.paging import all_pages
from pincex_client.transport import Caller, new_id

Amount = Decimal | int | str
MAX_PAGE = 500


@dataclass(frozen=True, slots=True)
class Network:
    """One asset on one network, and its terms."""

    asset: str
    network: str
    required_confirmations: int
    withdrawal_fee: Decimal
    least_withdrawal: Decimal
    deposits_open: bool
    withdrawals_open: bool


@dataclass(frozen=True, slots=True)
class DepositAddress:
    """Where to send to."""

    asset: str
    network: str
    address: str


@dataclass(frozen=True, slots=True)
class Deposit:
    """Money that came in. `status` is SEEN, CONFIRMED, CREDITED, ORPHANED or REVERSED."""

    deposit_id: str
    account: str
    asset: str
    amount: Decimal
    network: str
    address: str
    transaction_id: str
    status: str
    confirmations: int
    required_confirmations: int
    recovered_amount: Decimal
    sequence: int
    seen_time: datetime | None
    credited_time: datetime | None


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Money that goes out. `status` is REQUESTED, AWAITING_APPROVAL, APPROVED, SENDING, BROADCAST, SETTLED,
    WITHDRAWAL_CANCELLED, REJECTED or RETURNED; `problem` says why, with the last two.
    """

    withdrawal_id: str
    account: str
    asset: str
    amount: Decimal
    fee: Decimal
    network: str
    address: str
    status: str
    problem: str
    transaction_id: str
    approved_by: str
    created_time: datetime | None
    updated_time: datetime | None
    hold_sequence: int
    final_sequence: int
    request_id: str
    confirmations: int
    required_confirmations: int


@dataclass(frozen=True, slots=True)
class WithdrawalAddress:
    """An address that withdrawals may go to, from `usable_time` on."""

    address_id: str
    asset: str
    network: str
    address: str
    label: str
    usable_time: datetime | None
    created_time: datetime | None


@dataclass(frozen=True, slots=True)
class WithdrawalLimit:
    """Of one asset, within 24 hours."""

    asset: str
    daily_limit: Decimal
    used: Decimal
    left: Decimal


@dataclass(frozen=True, slots=True)
class WithdrawalLimits:
    """Of every asset, by the KYC tier."""

    kyc_tier: int
    limits: tuple[WithdrawalLimit, ...]
    frozen: bool
    withdrawals_stopped: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money from one account of the exchange to another."""

    transfer_id: str
    account: str
    to_account: str
    asset: str
    amount: Decimal
    sequence: int
    created_time: datetime | None
    request_id: str


@dataclass(frozen=True, slots=True)
class Custody:
    """What a network says that the exchange has."""

    network: str
    asset: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many deposits or withdrawals are in a state ("deposit SEEN"), and since when the oldest."""

    state: str
    count: int
    oldest_time: datetime | None


@dataclass(frozen=True, slots=True)
class WalletStatus:
    """How the wallet stands; `problem` is why withdrawals are stopped, or which network is away."""

    withdrawals_stopped: bool
    problem: str
    states: tuple[StateCount, ...]
    custody: tuple[Custody, ...]
    frozen_accounts: int


@dataclass(frozen=True, slots=True)
class AccountFreeze:
    """Whether nothing may go out of an account."""

    account: str
    frozen: bool
    reason: str


class _Calls:
    """What both sides share."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def _call(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    async def _list(self, method: Any, request: Any, field: str, kind: Any, limit: int) -> list[Any]:
        """The first so many of a list that comes in pages."""
        found: list[Any] = []
        async for page in all_pages(self._call, method, request, page_size=min(limit, MAX_PAGE)):
            found += [from_wire(kind, one) for one in getattr(page, field)]
            if len(found) >= limit:
                break
        return found[:limit]


class Wallet(_Calls):
    """Of the calling account. What moves money carries an id, made here where none is given, and counts once."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        super().__init__(caller)
        self._wallet = wallet_service_pb2_grpc.WalletServiceStub(channel)

    async def networks(self) -> list[Network]:
        """Which assets go over which networks, and on what terms."""
        answer = await self._call(self._wallet.ListNetworks, wire.ListNetworksRequest())
        return [from_wire(Network, one) for one in answer.networks]

    async def deposit_address(self, asset: str, *, network: str = "") -> DepositAddress:
        """Where to deposit; made at the first call."""
        request = wire.GetDepositAddressRequest(asset=asset, network=network)
        return from_wire(DepositAddress, await self._call(self._wallet.GetDepositAddress, request))

    async def deposits(self, *, asset: str = "", limit: int = 100) -> list[Deposit]:
        """The newest first."""
        request = wire.ListDepositsRequest(asset=asset)
        return await self._list(self._wallet.ListDeposits, request, "deposits", Deposit, limit)

    async def withdraw(
        self, asset: str, amount: Amount, address: str, *, network: str = "", request_id: str = ""
    ) -> Withdrawal:
        """Ask for a withdrawal to an address of the list; `amount` is what arrives, the fee comes on top."""
        request = wire.CreateWithdrawalRequest(
            asset=asset,
            amount=plain_decimal(amount, "amount"),
            address=address,
            network=network,
            request_id=request_id or new_id(),
        )
        return from_wire(Withdrawal, await self._call(self._wallet.CreateWithdrawal, request))

    async def withdrawal(self, withdrawal_id: str) -> Withdrawal:
        """One as it stands."""
        request = wire.GetWithdrawalRequest(withdrawal_id=withdrawal_id)
        return from_wire(Withdrawal, await self._call(self._wallet.GetWithdrawal, request))

    async def withdrawals(self, *, asset: str = "", limit: int = 100) -> list[Withdrawal]:
        """The newest first."""
        request = wire.ListWithdrawalsRequest(asset=asset)
        return await self._list(self._wallet.ListWithdrawals, request, "withdrawals", Withdrawal, limit)

    async def cancel_withdrawal(self, withdrawal_id: str) -> Withdrawal:
        """While it was not handed to the network."""
        request = wire.CancelWithdrawalRequest(withdrawal_id=withdrawal_id)
        return from_wire(Withdrawal, await self._call(self._wallet.CancelWithdrawal, request))

    async def add_address(self, asset: str, address: str, label: str, *, network: str = "") -> WithdrawalAddress:
        """List an address; it is usable after a cooling-off time."""
        request = wire.AddWithdrawalAddressRequest(asset=asset, network=network, address=address, label=label)
        return from_wire(WithdrawalAddress, await self._call(self._wallet.AddWithdrawalAddress, request))

    async def addresses(self, *, limit: int = 1000) -> list[WithdrawalAddress]:
        """By asset and label."""
        request = wire.ListWithdrawalAddressesRequest()
        return await self._list(self._wallet.ListWithdrawalAddresses, request, "addresses", WithdrawalAddress, limit)

    async def remove_address(self, address_id: str) -> None:
        """Take it off the list."""
        await self._call(
            self._wallet.RemoveWithdrawalAddress, wire.RemoveWithdrawalAddressRequest(address_id=address_id)
        )

    async def limits(self) -> WithdrawalLimits:
        """What may be withdrawn within 24 hours, and how much of it is used."""
        answer = await self._call(self._wallet.GetWithdrawalLimits, wire.GetWithdrawalLimitsRequest())
        return from_wire(WithdrawalLimits, answer)

    async def transfer(self, to_account: str, asset: str, amount: Amount, *, request_id: str = "") -> Transfer:
        """Send money to another account of the exchange, at once."""
        request = wire.CreateTransferRequest(
            to_account=to_account,
            asset=asset,
            amount=plain_decimal(amount, "amount"),
            request_id=request_id or new_id(),
        )
        return from_wire(Transfer, await self._call(self._wallet.CreateTransfer, request))

    async def transfers(self, *, limit: int = 100) -> list[Transfer]:
        """Sent and received, the newest first."""
        return await self._list(self._wallet.ListTransfers, wire.ListTransfersRequest(), "transfers", Transfer, limit)


class WalletAdmin(_Calls):
    """For operators, support and auditors."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        super().__init__(caller)
        self._admin = wallet_admin_service_pb2_grpc.WalletAdminServiceStub(channel)

    async def status(self) -> WalletStatus:
        """How the wallet stands, and whether withdrawals go out."""
        answer = await self._call(self._admin.GetWalletStatus, wallet_admin_service_pb2.GetWalletStatusRequest())
        return from_wire(WalletStatus, answer)

    async def pending(self, *, under_way: bool = False, limit: int = 100) -> list[Withdrawal]:
        """Withdrawals that wait for an operator, or all that are `under_way`; the oldest first."""
        request = wallet_admin_service_pb2.ListPendingWithdrawalsRequest(under_way=under_way)
        return await self._list(self._admin.ListPendingWithdrawals, request, "withdrawals", Withdrawal, limit)

    async def approve(self, withdrawal_id: str, *, reason: str = "") -> Withdrawal:
        """Let one go out. Refused to who asked for it."""
        request = wallet_admin_service_pb2.ApproveWithdrawalRequest(withdrawal_id=withdrawal_id, reason=reason)
        return from_wire(Withdrawal, await self._call(self._admin.ApproveWithdrawal, request))

    async def reject(self, withdrawal_id: str, *, reason: str) -> Withdrawal:
        """Refuse one; its money becomes available again."""
        request = wallet_admin_service_pb2.RejectWithdrawalRequest(withdrawal_id=withdrawal_id, reason=reason)
        return from_wire(Withdrawal, await self._call(self._admin.RejectWithdrawal, request))

    async def stop(self, *, reason: str) -> WalletStatus:
        """Nothing goes out any more, until resumed."""
        request = wallet_admin_service_pb2.StopWithdrawalsRequest(reason=reason)
        return from_wire(WalletStatus, await self._call(self._admin.StopWithdrawals, request))

    async def resume(self, *, reason: str) -> WalletStatus:
        """Lift the operator's stop."""
        request = wallet_admin_service_pb2.ResumeWithdrawalsRequest(reason=reason)
        return from_wire(WalletStatus, await self._call(self._admin.ResumeWithdrawals, request))

    async def freeze(self, account: str, *, reason: str) -> AccountFreeze:
        """No withdrawals and transfers from this account, until thawed."""
        request = wallet_admin_service_pb2.FreezeAccountRequest(account=account, reason=reason)
        return from_wire(AccountFreeze, await self._call(self._admin.FreezeAccount, request))

    async def thaw(self, account: str, *, reason: str) -> AccountFreeze:
        """Lift a freeze."""
        request = wallet_admin_service_pb2.ThawAccountRequest(account=account, reason=reason)
        return from_wire(AccountFreeze, await self._call(self._admin.ThawAccount, request))

    async def simulate_deposit(
        self, asset: str, amount: Amount, *, account: str = "", address: str = "", transaction_id: str = ""
    ) -> str:
        """Make a deposit appear on the simulated network, for an account or at an address; its transaction."""
        request = wallet_admin_service_pb2.SimulateDepositRequest(
            address=address,
            account=account,
            asset=asset,
            amount=plain_decimal(amount, "amount"),
            transaction_id=transaction_id or new_id(),
        )
        return str((await self._call(self._admin.SimulateDeposit, request)).transaction_id)

    async def simulate_reorg(self, transaction_id: str) -> None:
        """Make a transaction disappear from the simulated network."""
        request = wallet_admin_service_pb2.SimulateReorgRequest(transaction_id=transaction_id)
        await self._call(self._admin.SimulateReorg, request)

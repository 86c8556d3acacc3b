"""The part of WalletAdminService that is not about withdrawals: status, freezes, and the simulated network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.domain.symbols import is_client_id
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.fields import amount_units, caller, reason_text
from exchange.wallet import freezes
from exchange.wallet.connector import ConnectorAway
from exchange.wallet.service.messages import account_name, freeze_message, status_message
from pincex.wallet.v1 import wallet_admin_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import TypeVar

    from exchange.runtime.database import Database
    from exchange.wallet.addresses import DepositAddresses
    from exchange.wallet.networks import Networks
    from exchange.wallet.simulated.network import SimulatedNetwork
    from exchange.wallet.status import StatusReader

    T = TypeVar("T")


class Operations:
    """What operators ask and do."""

    def __init__(
        self,
        *,
        database: Database,
        networks: Networks,
        addresses: DepositAddresses,
        status: StatusReader,
        simulated: SimulatedNetwork | None,
    ) -> None:
        self._database = database
        self._networks = networks
        self._addresses = addresses
        self._status = status
        self._simulated = simulated

    async def status(self) -> pb.WalletStatus:
        """How the wallet stands."""
        return status_message(await self._status.read())

    async def freeze(self, request: pb.FreezeAccountRequest) -> pb.AccountFreeze:
        """No withdrawals and transfers from it."""
        account, reason = account_name(request.account), reason_text(request.reason, required=True)
        async with self._database.connection() as connection:
            return freeze_message(await freezes.freeze(connection, account, reason, caller()))

    async def thaw(self, request: pb.ThawAccountRequest) -> pb.AccountFreeze:
        """Lifts it."""
        account, reason = account_name(request.account), reason_text(request.reason, required=True)
        async with self._database.connection() as connection:
            return freeze_message(await freezes.thaw(connection, account, reason, caller()))

    async def simulate_deposit(self, request: pb.SimulateDepositRequest) -> pb.SimulateDepositResponse:
        """Makes one appear."""
        simulated = self._network()
        if bool(request.address) == bool(request.account):
            raise ServiceError(
                ErrorReason.FIELD_NOT_ALLOWED if request.address else ErrorReason.FIELD_REQUIRED,
                "either address or account says where it appears",
                metadata={"field": "account"},
            )
        name = request.transaction_id
        if name and not is_client_id(name):
            reject(ErrorReason.INVALID_FIELD, field="transaction_id", value=name)
        network = await self._networks.find(request.asset, simulated.network)
        amount = amount_units(request.amount, network.decimals)
        address = request.address
        if not address:
            address = await _answered(self._addresses.of(account_name(request.account), network))
        made = await _answered(simulated.deposit(address, network.asset, amount, name))
        return pb.SimulateDepositResponse(transaction_id=made)

    async def simulate_reorg(self, request: pb.SimulateReorgRequest) -> pb.SimulateReorgResponse:
        """Makes one disappear."""
        if not request.transaction_id:
            reject(ErrorReason.FIELD_REQUIRED, field="transaction_id")
        await _answered(self._network().vanish(request.transaction_id))
        return pb.SimulateReorgResponse()

    def _network(self) -> SimulatedNetwork:
        if self._simulated is None:
            raise ServiceError(ErrorReason.UNKNOWN_NETWORK, "no simulated network runs here")
        return self._simulated


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except ConnectorAway as error:
        raise ServiceError(ErrorReason.NOT_READY, f"the network does not answer now: {error}") from error

"""The part of WalletService that is about money in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.request import request_context
from exchange.wallet import deposits
from exchange.wallet.connector import ConnectorAway
from exchange.wallet.service.messages import deposit_message, network_message
from pincex.wallet.v1 import wallet_service_pb2 as pb

if TYPE_CHECKING:
    from exchange.runtime.database import Database
    from exchange.wallet.addresses import DepositAddresses
    from exchange.wallet.networks import Networks
    from exchange.wallet.status import Stops


class DepositCalls:
    """Of the calling account."""

    def __init__(self, database: Database, networks: Networks, addresses: DepositAddresses, stops: Stops) -> None:
        self._database = database
        self._networks = networks
        self._addresses = addresses
        self._stops = stops

    async def list_networks(self) -> pb.ListNetworksResponse:
        """All of them."""
        is_open = not await self._stops.why()
        found = await self._networks.all()
        return pb.ListNetworksResponse(networks=[network_message(one, withdrawals_open=is_open) for one in found])

    async def deposit_address(self, request: pb.GetDepositAddressRequest) -> pb.DepositAddress:
        """Made at the first call."""
        network = await self._networks.find(request.asset, request.network)
        try:
            address = await self._addresses.of(request_context().principal.account, network)
        except ConnectorAway as error:
            raise ServiceError(ErrorReason.NOT_READY, f"the network does not answer now: {error}") from error
        return pb.DepositAddress(asset=network.asset, network=network.network, address=address)

    async def list_deposits(self, request: pb.ListDepositsRequest) -> pb.ListDepositsResponse:
        """The newest first."""
        account, asset = request_context().principal.account, request.asset.upper()
        size = paging.page_size(request.page_size)
        before = paging.number_position(request.page_token, "deposits", account, asset)
        if asset:
            await self._networks.assets.decimals(asset)
        found = await deposits.listed(self._database, account, asset, before, size + 1)
        response = pb.ListDepositsResponse(deposits=map(deposit_message, found[:size]))
        if len(found) > size:
            response.next_page_token = paging.make_token(str(found[size - 1].deposit_id), "deposits", account, asset)
        return response

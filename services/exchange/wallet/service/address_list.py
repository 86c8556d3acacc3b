"""The part of WalletService that is about addresses for withdrawals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.request import request_context
from exchange.wallet.service.outgoing_messages import address_message
from pincex.wallet.v1 import wallet_service_pb2 as pb

if TYPE_CHECKING:
    from exchange.wallet.address_list import AddressList
    from pincex.wallet.v1 import types_pb2

_BEGIN = ("", "", 0)


class AddressListCalls:
    """Of the calling account."""

    def __init__(self, addresses: AddressList) -> None:
        self._addresses = addresses

    async def add(self, request: pb.AddWithdrawalAddressRequest) -> types_pb2.WithdrawalAddress:
        """One that is listed already stays so."""
        account = request_context().principal.account
        return address_message(
            await self._addresses.add(account, request.asset, request.network, request.address, request.label)
        )

    async def list(self, request: pb.ListWithdrawalAddressesRequest) -> pb.ListWithdrawalAddressesResponse:
        """By asset and label."""
        account = request_context().principal.account
        size = paging.page_size(request.page_size)
        after = _place(paging.read_token(request.page_token, "addresses", account))
        found = await self._addresses.page(account, after, size + 1)
        response = pb.ListWithdrawalAddressesResponse(addresses=map(address_message, found[:size]))
        if len(found) > size:
            last = found[size - 1]
            position = json.dumps([last.asset, last.label, last.number])
            response.next_page_token = paging.make_token(position, "addresses", account)
        return response

    async def remove(self, request: pb.RemoveWithdrawalAddressRequest) -> pb.RemoveWithdrawalAddressResponse:
        """Nothing goes there any more that was not asked for before."""
        if not request.address_id:
            reject(ErrorReason.FIELD_REQUIRED, field="address_id")
        await self._addresses.remove(request_context().principal.account, request.address_id)
        return pb.RemoveWithdrawalAddressResponse()


def _place(position: str) -> tuple[str, str, int]:
    """(asset, label, number) of a token's position. Raises ServiceError INVALID_PAGE_TOKEN."""
    if not position:
        return _BEGIN
    try:
        asset, label, number = json.loads(position)
    except (ValueError, TypeError):
        asset = label = number = None
    if not (isinstance(asset, str) and isinstance(label, str) and type(number) is int and 0 <= number < 2**63):
        raise ServiceError(ErrorReason.INVALID_PAGE_TOKEN, metadata={"field": "page_token"})
    return asset, label, number

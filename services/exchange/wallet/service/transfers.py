"""The part of WalletService that is about transfers, and who has an account that they can go to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exchange.domain.symbols import is_account
from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.fields import amount_units, request_id
from exchange.runtime.request import request_context
from exchange.wallet.service.messages import account_name
from exchange.wallet.service.outgoing_messages import transfer_message
from exchange.wallet.transfers import Order
from pincex.auth.v1 import auth_admin_service_pb2 as auth_pb
from pincex.auth.v1 import auth_admin_service_pb2_grpc
from pincex.wallet.v1 import wallet_service_pb2 as pb

if TYPE_CHECKING:
    from exchange.runtime.internal_client import InternalClient
    from exchange.wallet.engine import Assets
    from exchange.wallet.transfers import Transfers
    from pincex.wallet.v1 import types_pb2

_NOBODY: Final = frozenset({ErrorReason.USER_NOT_FOUND, ErrorReason.INVALID_FIELD, ErrorReason.FIELD_REQUIRED})


class TransferCalls:
    """Of the calling account."""

    def __init__(self, transfers: Transfers, assets: Assets) -> None:
        self._transfers = transfers
        self._assets = assets

    async def create(self, request: pb.CreateTransferRequest) -> types_pb2.Transfer:
        """Carried out when it answers."""
        name = request_id(request.request_id)
        to_account = account_name(request.to_account, "to_account")
        asset = request.asset.upper()
        decimals = await self._assets.decimals(asset)
        amount = amount_units(request.amount, decimals)
        account = request_context().principal.account
        return transfer_message(await self._transfers.create(Order(account, to_account, asset, decimals, amount, name)))

    async def list(self, request: pb.ListTransfersRequest) -> pb.ListTransfersResponse:
        """Sent and received."""
        account = request_context().principal.account
        size = paging.page_size(request.page_size)
        before = paging.number_position(request.page_token, "transfers", account)
        found = await self._transfers.page(account, before, size + 1)
        response = pb.ListTransfersResponse()
        for one in found[:size]:
            message = response.transfers.add()
            message.CopyFrom(transfer_message(one))
            if one.account != account:
                # What the sender calls it is the sender's.
                message.request_id = ""
        if len(found) > size:
            response.next_page_token = paging.make_token(str(found[size - 1].number), "transfers", account)
        return response


class AnyAccount:
    """The development profile, where an account is whatever somebody calls it."""

    async def exists(self, account: str) -> bool:
        """See `transfers.Accounts`."""
        return is_account(account)


class UserAccounts:
    """Accounts of users, as the auth service knows them: "<user>" and "<user>.<name>"."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client

    async def exists(self, account: str) -> bool:
        """See `transfers.Accounts`."""
        stub: Any = auth_admin_service_pb2_grpc.AuthAdminServiceStub(self._client.channel)
        request = auth_pb.GetUserByAdminRequest(user_id=account.partition(".")[0])
        try:
            user = await self._client.call(stub.GetUserByAdmin, request, repeatable=True)
        except ServiceError as error:
            if error.reason in _NOBODY:
                return False
            raise
        return account in user.accounts

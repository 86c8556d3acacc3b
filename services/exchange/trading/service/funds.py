"""FundsService: how services and operators move trading balances. Each move is a journaled command."""

from __future__ import annotations

from typing import Any, Final

import structlog

from exchange.domain.symbols import is_account
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.request import request_context
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import C_REQUEST_TIME, Command
from exchange.trading.core.events import B_ASSET, BALANCE_ADJUSTED, E_KIND, R_SEQUENCE
from exchange.trading.core.model import Asset, Balance
from exchange.trading.feeds.hub import Hub
from exchange.trading.service import requests
from exchange.trading.service.desk import Desk
from exchange.trading.service.messages import balance_message
from exchange.trading.service.streaming import durable
from exchange.trading.service.units import amount_units
from pincex.trading.v1 import funds_service_pb2 as pb
from pincex.trading.v1 import funds_service_pb2_grpc

MAX_REASON: Final = 256
"""Characters of what a caller gives as a reason."""
MAX_HOLDER: Final = 64
"""Characters of an account's name, the exchange's own included."""


class FundsService(funds_service_pb2_grpc.FundsServiceServicer):
    """See `proto/pincex/trading/v1/funds_service.proto`."""

    def __init__(self, desk: Desk, hub: Hub) -> None:
        self._desk = desk
        self._hub = hub
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("funds")

    async def DepositFunds(self, request: pb.DepositFundsRequest, context: Any) -> pb.FundsMoved:
        """Money has come in."""
        account = holder_name(request.account)
        request_id = _request_id(request.request_id)
        asset, amount = await self._amount(request)
        time_ns = _request_time(request)
        command = cmd.credit(account, asset.index, amount, request_id=request_id, request_time_ns=time_ns)
        return await self._moved(command, account, asset, request.reason, "deposit credited")

    async def HoldFunds(self, request: pb.HoldFundsRequest, context: Any) -> pb.FundsMoved:
        """Available to held, under the request's id."""
        account = holder_name(request.account)
        request_id = _request_id(request.request_id)
        asset, amount = await self._amount(request)
        command = cmd.hold(account, asset.index, amount, request_id=request_id)
        return await self._moved(command, account, asset, request.reason, "funds held")

    async def SettleHold(self, request: pb.SettleHoldRequest, context: Any) -> pb.FundsMoved:
        """The money of a hold has left."""
        account, hold_id, request_id = _hold(request)
        command = cmd.settle_hold(account, hold_id, request_id=request_id)
        return await self._moved(command, account, None, request.reason, "hold settled")

    async def ReleaseHold(self, request: pb.ReleaseHoldRequest, context: Any) -> pb.FundsMoved:
        """The money of a hold goes back."""
        account, hold_id, request_id = _hold(request)
        command = cmd.release_hold(account, hold_id, request_id=request_id)
        return await self._moved(command, account, None, request.reason, "hold released")

    async def TransferFunds(self, request: pb.TransferFundsRequest, context: Any) -> pb.FundsMoved:
        """From one account to another."""
        account, to_account = holder_name(request.account), holder_name(request.to_account, "to_account")
        if account == to_account:
            raise requests.refuse(ErrorReason.INVALID_FIELD, "to_account", "to_account must be another account")
        request_id = _request_id(request.request_id)
        asset, amount = await self._amount(request)
        command = cmd.transfer(account, to_account, asset.index, amount, request_id=request_id)
        if time_ns := _request_time(request):
            command = (*command[:C_REQUEST_TIME], time_ns, *command[C_REQUEST_TIME + 1 :])
        return await self._moved(command, account, asset, request.reason, f"funds transferred to {to_account}")

    async def GetFunds(self, request: pb.GetFundsRequest, context: Any) -> pb.Funds:
        """All balances, read at one moment."""
        account = holder_name(request.account)
        desk = self._desk
        await desk.reach(request.min_sequence)
        state = desk.state
        response = pb.Funds(account=account, sequence=state.sequence)
        holder = state.accounts.get(account)
        if holder is not None:
            rows = [(state.assets[asset], balance) for asset, balance in holder.balances.items()]
            rows.sort(key=lambda row: row[0].code)
            response.balances.extend(
                balance_message(account, asset, balance, state.sequence) for asset, balance in rows
            )
        await desk.settle()
        return response

    async def _amount(
        self, request: pb.DepositFundsRequest | pb.HoldFundsRequest | pb.TransferFundsRequest
    ) -> tuple[Asset, int]:
        asset = await self._desk.find(lambda: self._desk.asset(request.asset))
        return asset, amount_units(request.amount, asset.decimals, "amount")

    async def _moved(
        self, command: Command, account: str, asset: Asset | None, reason: str, what: str
    ) -> pb.FundsMoved:
        """Carry it out. `asset` is None where only the engine knows which one a hold is of."""
        if len(reason) > MAX_REASON:
            raise requests.refuse(ErrorReason.INVALID_FIELD, "reason", f"reason is longer than {MAX_REASON} characters")
        desk = self._desk
        result = await desk.execute(command)
        sequence: int = result[R_SEQUENCE]
        caller = request_context().principal.account
        self._log.info(what, caller=caller, account=account, reason=reason, sequence=sequence)
        if asset is None:
            asset = desk.state.assets[await self._asset_moved(sequence)]
        state = desk.state
        balance = state.accounts[account].balances.get(asset.index, Balance())
        message = pb.FundsMoved(sequence=sequence, balance=balance_message(account, asset, balance, state.sequence))
        await desk.settle()
        return message

    async def _asset_moved(self, sequence: int) -> int:
        """The asset that a command moved, as its event tells: the hold is gone, and a repeat may come long after."""
        async for committed in durable(self._hub, sequence):
            for event in committed.events[sequence - committed.first_sequence]:
                if event[E_KIND] == BALANCE_ADJUSTED:
                    asset: int = event[B_ASSET]
                    return asset
            break
        raise ServiceError(ErrorReason.JOURNAL_UNAVAILABLE)


def holder_name(text: str, field: str = "account") -> str:
    """An account of a client, or one of the exchange's own, which begin with `$`. Raises ServiceError FIELD_REQUIRED,
    INVALID_FIELD.
    """
    if text[:1] == "$" and is_account(text[1:]) and len(text) <= MAX_HOLDER:
        return text
    return requests.account_name(text, field)


def _request_id(text: str) -> str:
    if not text:
        raise requests.refuse(ErrorReason.FIELD_REQUIRED, "request_id")
    return requests.client_id(text, "request_id")


def _request_time(request: pb.DepositFundsRequest | pb.TransferFundsRequest) -> int:
    """Nanoseconds since 1970, 0 where the caller does not say when it first asked."""
    return requests.nanoseconds(request.request_time, "request_time") if request.HasField("request_time") else 0


def _hold(request: pb.SettleHoldRequest | pb.ReleaseHoldRequest) -> tuple[str, str, str]:
    """(account, hold, request id) of a request."""
    account = holder_name(request.account)
    if not request.hold_id:
        raise requests.refuse(ErrorReason.FIELD_REQUIRED, "hold_id")
    return account, requests.client_id(request.hold_id, "hold_id"), _request_id(request.request_id)

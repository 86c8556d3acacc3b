"""The part of WalletService that is about withdrawals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.fields import amount_units, request_id
from exchange.runtime.request import request_context
from exchange.wallet import limits
from exchange.wallet.address_list import address_text
from exchange.wallet.freezes import is_frozen
from exchange.wallet.service.outgoing_messages import limit_message, withdrawal_message
from exchange.wallet.withdrawals import Wanted, refuse_where_held_was_refused
from pincex.wallet.v1 import wallet_service_pb2 as pb

if TYPE_CHECKING:
    from exchange.runtime.database import Database
    from exchange.wallet.networks import Networks
    from exchange.wallet.stops import Stops
    from exchange.wallet.withdrawal_steps import WithdrawalSteps
    from exchange.wallet.withdrawals import Withdrawal, Withdrawals
    from pincex.wallet.v1 import types_pb2


class WithdrawalCalls:
    """Of the calling account."""

    def __init__(
        self,
        *,
        database: Database,
        networks: Networks,
        withdrawals: Withdrawals,
        steps: WithdrawalSteps,
        stops: Stops,
        tiers: limits.Tiers,
    ) -> None:
        self._database = database
        self._networks = networks
        self._withdrawals = withdrawals
        self._steps = steps
        self._stops = stops
        self._tiers = tiers
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("withdrawals")

    async def create(self, request: pb.CreateWithdrawalRequest) -> types_pb2.Withdrawal:
        """Put on record and held, once for its request id."""
        principal = request_context().principal
        name = request_id(request.request_id)
        address = address_text(request.address)
        network = await self._networks.find(request.asset, request.network)
        amount = amount_units(request.amount, network.decimals)
        found = await self._withdrawals.request(
            Wanted(principal.account, principal.user, name, network, address, amount)
        )
        found = await self._held(found)
        refuse_where_held_was_refused(found)
        return withdrawal_message(found)

    async def get(self, request: pb.GetWithdrawalRequest) -> types_pb2.Withdrawal:
        """One."""
        return withdrawal_message(await self._withdrawals.get(_id(request.withdrawal_id), _account()))

    async def list(self, request: pb.ListWithdrawalsRequest) -> pb.ListWithdrawalsResponse:
        """The newest first."""
        account, asset = _account(), request.asset.upper()
        size = paging.page_size(request.page_size)
        before = paging.number_position(request.page_token, "withdrawals", account, asset)
        found = await self._withdrawals.page(account, asset, before, size + 1)
        response = pb.ListWithdrawalsResponse(withdrawals=map(withdrawal_message, found[:size]))
        if len(found) > size:
            response.next_page_token = paging.make_token(str(found[size - 1].number), "withdrawals", account, asset)
        return response

    async def cancel(self, request: pb.CancelWithdrawalRequest) -> types_pb2.Withdrawal:
        """The answer waits until its money is available again."""
        found = await self._withdrawals.cancel(_id(request.withdrawal_id), _account())
        return withdrawal_message(await self._steps.end(found))

    async def limits(self, request: pb.GetWithdrawalLimitsRequest) -> pb.WithdrawalLimits:
        """Of every asset."""
        principal = request_context().principal
        owner = limits.owner_of(principal.user, principal.account)
        tier = await self._tiers.of(owner)
        assets = await self._networks.assets.all()
        async with self._database.connection() as connection:
            used = await limits.used(connection, owner)
            frozen = await is_frozen(connection, principal.account)
        found = [
            limits.Limit(asset, decimals, limits.daily_units(tier, asset, decimals), used.get(asset, 0))
            for asset, decimals in sorted(assets.items())
        ]
        return pb.WithdrawalLimits(
            kyc_tier=tier.tier,
            limits=map(limit_message, found),
            frozen=frozen,
            withdrawals_stopped=bool(await self._stops.why()),
        )

    async def _held(self, found: Withdrawal) -> Withdrawal:
        """After its hold, or as it is while nobody knows of that: the worker goes on."""
        try:
            return await self._steps.hold(found)
        except ServiceError as error:
            self._log.warning("the hold is not known yet", withdrawal=found.withdrawal_id, error=str(error))
            return found


def _account() -> str:
    return request_context().principal.account


def _id(withdrawal_id: str) -> str:
    if not withdrawal_id:
        reject(ErrorReason.FIELD_REQUIRED, field="withdrawal_id")
    return withdrawal_id

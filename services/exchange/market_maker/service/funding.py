"""Money of the market maker on the development profile; in production an operator funds its account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from exchange.market_maker.exchange import Away
from exchange.runtime.errors import ErrorReason, ServiceError
from pincex.trading.v1 import funds_service_pb2, funds_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.runtime.internal_client import InternalClient

AMOUNTS: Final = {"BTC": "100", "ETH": "1000", "USD": "10000000"}


class Seed:
    """Deposits AMOUNTS, each once: of an asset that the account has ever held it gets no more."""

    def __init__(self, client: InternalClient, account: str) -> None:
        self._client = client
        self._account = account

    async def __call__(self) -> None:
        """Raises Away."""
        channel: Any = self._client.channel
        stub: Any = funds_service_pb2_grpc.FundsServiceStub(channel)
        try:
            wanted = funds_service_pb2.GetFundsRequest(account=self._account)
            held = {balance.asset for balance in (await self._held(stub, wanted))}
            for asset, amount in AMOUNTS.items():
                if asset not in held:
                    await self._deposit(stub, asset, amount)
        except ServiceError as error:
            raise Away(f"the account cannot be funded: {error}") from error

    async def _held(self, stub: Any, request: funds_service_pb2.GetFundsRequest) -> Any:
        return (await self._client.call(stub.GetFunds, request, repeatable=True)).balances

    async def _deposit(self, stub: Any, asset: str, amount: str) -> None:
        request = funds_service_pb2.DepositFundsRequest(
            account=self._account,
            asset=asset,
            amount=amount,
            request_id=f"market-maker-seed:{asset}",
            reason="to quote with, on the development profile",
        )
        try:
            await self._client.call(stub.DepositFunds, request, repeatable=True)
        except ServiceError as error:
            # An exchange that was given other assets.
            if error.reason != ErrorReason.UNKNOWN_ASSET:
                raise

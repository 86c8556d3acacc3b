"""`ExchangeClient.admin.market_maker`: the exchange's own market maker."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import grpc.aio

from pincex.marketmaker.v1 import market_maker_service_pb2 as wire
from pincex.marketmaker.v1 import market_maker_service_pb2_grpc
from pincex_client.convert import from_wire, plain_decimal
from pincex_client.transport import Caller

Amount = Decimal | int | str


@dataclass(frozen=True, slots=True)
class MarketQuoting:
    """One market. `state` is QUOTING, or why not; spreads are fractions of the reference price; `inventory` is beyond what it
    began with, of the base asset; `profit_today` is of the quote asset.
    """

    symbol: str
    enabled: bool
    state: str
    min_spread: Decimal
    max_spread: Decimal
    levels: int
    level_quantity: Decimal
    max_inventory: Decimal
    max_daily_loss: Decimal
    reference_price: Decimal | None
    bid_price: Decimal | None
    ask_price: Decimal | None
    open_orders: int
    inventory: Decimal
    profit_today: Decimal


@dataclass(frozen=True, slots=True)
class MarketMakerStatus:
    """How it stands."""

    enabled: bool
    connected: bool
    account: str
    markets: tuple[MarketQuoting, ...]
    status_time: datetime | None


class MarketMakerAdmin:
    """For operators; the status for support and auditors, too."""

    def __init__(self, channel: grpc.aio.Channel, caller: Caller) -> None:
        self._caller = caller
        self._maker = market_maker_service_pb2_grpc.MarketMakerServiceStub(channel)

    async def _call(self, method: Any, request: Any) -> MarketMakerStatus:
        return from_wire(MarketMakerStatus, await self._caller.call(method, request, repeatable=True))

    async def status(self) -> MarketMakerStatus:
        """What it quotes, holds and has earned, and why it does not quote."""
        return await self._call(self._maker.GetMarketMakerStatus, wire.GetMarketMakerStatusRequest())

    async def enable(self, *, reason: str = "") -> MarketMakerStatus:
        """Have it quote from now on, after a loss limit too."""
        return await self._call(self._maker.EnableQuoting, wire.EnableQuotingRequest(reason=reason))

    async def disable(self, *, reason: str = "") -> MarketMakerStatus:
        """Have it take back all its orders; answers once none is left."""
        return await self._call(self._maker.DisableQuoting, wire.DisableQuotingRequest(reason=reason))

    async def set_spreads(self, spreads: Mapping[str, Mapping[str, Amount]]) -> MarketMakerStatus:
        """By symbol, `min_spread` and `max_spread`; one that is absent stays. All or none."""
        request = wire.SetSpreadsRequest()
        # As texts: a binary fraction is no spread.
        request.spreads.update(
            {
                symbol: {name: plain_decimal(value, name) for name, value in values.items()}
                for symbol, values in spreads.items()
            }
        )
        return await self._call(self._maker.SetSpreads, request)

    async def set_quoting(
        self,
        symbol: str,
        *,
        enabled: bool | None = None,
        levels: int | None = None,
        level_quantity: Amount | None = None,
        max_inventory: Amount | None = None,
        max_daily_loss: Amount | None = None,
        reason: str = "",
    ) -> MarketMakerStatus:
        """How much it quotes in a market, and what it may hold and lose; None leaves things as they are."""
        amounts = {"level_quantity": level_quantity, "max_inventory": max_inventory, "max_daily_loss": max_daily_loss}
        request = wire.SetQuotingRequest(
            symbol=symbol,
            enabled=enabled,
            levels=levels,
            reason=reason,
            **{name: plain_decimal(value, name) for name, value in amounts.items() if value is not None},
        )
        return await self._call(self._maker.SetQuoting, request)

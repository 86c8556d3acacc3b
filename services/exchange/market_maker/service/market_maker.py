"""MarketMakerService: what operators see and change. Any instance answers; the one that quotes follows what is written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from exchange.domain.symbols import canonical_symbol
from exchange.market_maker import store
from exchange.market_maker.changing import amount, check_quoting, with_spreads
from exchange.market_maker.decision import DISABLED, NOT_CONNECTED
from exchange.market_maker.exchange import Away
from exchange.market_maker.position import Position
from exchange.market_maker.rules import default_settings
from exchange.market_maker.service.spreads import read_spreads
from exchange.market_maker.store import Standing
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from exchange.runtime.fields import reason_text, timestamp
from pincex.marketmaker.v1 import market_maker_service_pb2 as pb
from pincex.marketmaker.v1 import market_maker_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.market_maker.rules import MarketRules, MarketSettings
    from exchange.market_maker.service.markets import EdgeMarkets
    from exchange.market_maker.store import Settings
    from exchange.runtime.database import Database

# A report that is older is of an instance that quotes no more; three that were due have not come.
MAX_REPORT_AGE_S: Final = 5.0
# For the quoting instance to follow; the edge gives up after 10 s.
FOLLOWED_S: Final = 3.0
EMPTIED_S: Final = 8.0
POLL_S: Final = 0.05

Change = Callable[["Settings"], "tuple[list[MarketSettings], bool]"]


class MarketMakerService(market_maker_service_pb2_grpc.MarketMakerServiceServicer):
    """See `proto/pincex/marketmaker/v1/market_maker_service.proto`. The guard has checked roles and writes the audit record."""

    def __init__(
        self, database: Database, markets: EdgeMarkets, *, enabled_at_first: bool, wake: Callable[[], None]
    ) -> None:
        self._database = database
        self._markets = markets
        self._enabled_at_first = enabled_at_first
        self._wake = wake

    async def EnableQuoting(self, request: pb.EnableQuotingRequest, context: Any) -> pb.MarketMakerStatus:
        """From now on; what was lost before counts no more."""
        reason_text(request.reason)
        revision = await self._change(
            lambda known: ([replace(one, allowance=one.allowance + 1) for one in known.markets.values()], True)
        )
        await self._followed(revision, FOLLOWED_S)
        return await self._status()

    async def DisableQuoting(self, request: pb.DisableQuotingRequest, context: Any) -> pb.MarketMakerStatus:
        """Answers when no order is left. Raises ServiceError UPSTREAM_TIMEOUT where that cannot be said: ask again."""
        reason_text(request.reason)
        revision = await self._change(lambda _known: ([], False))
        try:
            async with asyncio.timeout(EMPTIED_S):
                await self._followed(revision, EMPTIED_S)
                await _until(self._is_empty)
                # What is shown is reported by the one that quotes, a round later.
                self._wake()
                await _until(self._shows_none)
        except (TimeoutError, Away) as error:
            raise ServiceError(
                ErrorReason.UPSTREAM_TIMEOUT,
                f"quoting is disabled, but it is not known that no order is left {error}".rstrip() + ": ask again",
            ) from error
        return await self._status()

    async def GetMarketMakerStatus(self, request: pb.GetMarketMakerStatusRequest, context: Any) -> pb.MarketMakerStatus:
        """As it was reported last."""
        return await self._status()

    async def SetSpreads(self, request: pb.SetSpreadsRequest, context: Any) -> pb.MarketMakerStatus:
        """All or none."""
        wanted = read_spreads(request.spreads)
        await self._know(set(wanted))
        revision = await self._change(lambda known: (with_spreads(known.markets, wanted), known.enabled))
        await self._followed(revision, FOLLOWED_S)
        return await self._status()

    async def SetQuoting(self, request: pb.SetQuotingRequest, context: Any) -> pb.MarketMakerStatus:
        """What is absent stays as it is."""
        reason_text(request.reason)
        if not request.symbol:
            reject(ErrorReason.FIELD_REQUIRED, field="symbol")
        symbol = canonical_symbol(request.symbol)
        values: dict[str, Any] = {
            field: amount(field, getattr(request, field))
            for field in ("level_quantity", "max_inventory", "max_daily_loss")
            if request.HasField(field)
        }
        if request.HasField("levels"):
            values["levels"] = request.levels
        rules = (await self._know({symbol})).get(symbol)

        def change(known: Settings) -> tuple[list[MarketSettings], bool]:
            if symbol not in known.markets or rules is None:
                reject(ErrorReason.UNKNOWN_SYMBOL, symbol=symbol)
            one = replace(known.markets[symbol], **values)
            if request.HasField("enabled"):
                one = replace(one, enabled=request.enabled, allowance=one.allowance + request.enabled)
            if values:
                check_quoting(one, rules)
            return [one], known.enabled

        await self._followed(await self._change(change), FOLLOWED_S)
        return await self._status()

    # --- settings ---

    async def _know(self, symbols: set[str]) -> dict[str, MarketRules]:
        """The exchange's markets by symbol; those asked for get settings if they have none yet.

        Raises ServiceError UPSTREAM_UNAVAILABLE.
        """
        try:
            rules = {found.symbol: found for found in await self._markets.markets()}
        except Away as error:
            raise ServiceError(ErrorReason.UPSTREAM_UNAVAILABLE, f"the markets are not known now: {error}") from error
        added = [
            default_settings(rules[symbol], enabled=self._enabled_at_first) for symbol in symbols if symbol in rules
        ]
        async with self._database.connection() as connection:
            await store.add_markets(connection, added)
        return rules

    async def _change(self, change: Change) -> int:
        """One change at a time; answers the revision that has it."""
        async with self._database.transaction() as connection:
            known = await store.lock_settings(connection, enabled=self._enabled_at_first)
            changed, enabled = change(known)
            revision = await store.change(connection, changed, enabled=enabled)
        self._wake()
        return revision

    async def _followed(self, revision: int, timeout_s: float) -> None:
        """Wait until the quoting instance has acted by this revision; not for long, and not if none quotes."""

        async def is_followed() -> bool:
            async with self._database.connection() as connection:
                progress = await store.progress(connection)
            return progress.revision >= revision or progress.age_s > MAX_REPORT_AGE_S

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await _until(is_followed)

    async def _shows_none(self) -> bool:
        return not any(market.open_orders for market in (await self._status()).markets)

    async def _is_empty(self) -> bool:
        return not await self._markets.open_orders()

    async def _status(self) -> pb.MarketMakerStatus:
        async with self._database.reading() as connection:
            return status_message(await store.standing(connection))


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    """It comes to be in another process, so it is asked for again and again."""
    while not await condition():  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)


def status_message(standing: Standing) -> pb.MarketMakerStatus:
    """As operators see it. What is reported no more is not connected, and what is disabled is that first of all."""
    settings, progress = standing.settings, standing.progress
    reported = progress.age_s <= MAX_REPORT_AGE_S
    message = pb.MarketMakerStatus(
        enabled=settings.enabled,
        connected=reported and progress.connected,
        account=progress.account,
        status_time=timestamp(standing.now),
    )
    for symbol, one in settings.markets.items():
        market = message.markets.add(
            symbol=symbol,
            enabled=one.enabled,
            state=NOT_CONNECTED if settings.enabled and one.enabled else DISABLED,
            min_spread=_text(one.min_spread),
            max_spread=_text(one.max_spread),
            levels=one.levels,
            level_quantity=_text(one.level_quantity),
            max_inventory=_text(one.max_inventory),
            max_daily_loss=_text(one.max_daily_loss),
            inventory=_text(standing.positions.get(symbol, Position(symbol)).inventory),
            profit_today="0",
        )
        report = standing.reports.get(symbol)
        if report is not None and reported:
            market.state = report.state
            market.reference_price = _text(report.reference_price)
            market.bid_price = _text(report.bid_price)
            market.ask_price = _text(report.ask_price)
            market.open_orders = report.open_orders
            market.profit_today = _text(report.profit_today)
    return message


def _text(value: Decimal | None) -> str:
    """A plain decimal without zeros at its end; empty for none."""
    if value is None:
        return ""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text

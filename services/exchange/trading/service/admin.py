"""TradingAdminService: what operators do to the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog
from google.api import httpbody_pb2

from exchange.domain.decimals import DecimalError, decimals_of
from exchange.domain.symbols import ASSET_CODE, SYMBOL, canonical_symbol
from exchange.runtime import paging
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.book_answer import checked_depth
from exchange.runtime.relayed import relayed
from exchange.runtime.request import request_context
from exchange.trading.core import book, keys
from exchange.trading.core import commands as cmd
from exchange.trading.core import registry as reg
from exchange.trading.core.commands import Command
from exchange.trading.core.constants import (
    CANCEL_ONLY,
    HALTED,
    OPEN,
    STP_CANCEL_NEWEST,
    SWITCH_ACCEPT_NEW_ORDERS,
    SWITCH_CIRCUIT_BREAKER,
    SWITCH_MAINTENANCE,
)
from exchange.trading.core.events import R_COUNT, R_SEQUENCE
from exchange.trading.core.invariants import check_market, check_money
from exchange.trading.inspection import Inspector
from exchange.trading.limits.activity import Activity
from exchange.trading.service import requests
from exchange.trading.service.desk import Desk
from exchange.trading.service.limits import busy_accounts
from exchange.trading.service.market import add_levels
from exchange.trading.service.messages import asset_message, market_message
from exchange.trading.service.past import JournalProofs
from exchange.trading.service.replica_desk import ReplicaDesk
from exchange.trading.service.units import amount_units, decimal_error, units_or_zero
from pincex.trading.v1 import admin_replicas_pb2 as replicas_pb
from pincex.trading.v1 import admin_service_pb2 as pb
from pincex.trading.v1 import admin_service_pb2_grpc, types_pb2

DEFAULT_PROTECTION_PPM = 50_000


class TradingAdminService(admin_service_pb2_grpc.TradingAdminServiceServicer):
    """See `proto/pincex/trading/v1/admin_service.proto`."""

    def __init__(
        self,
        desk: Desk,
        inspector: Inspector,
        metrics_text: Callable[[], Awaitable[bytes]],
        replicas: ReplicaDesk,
        make_snapshot: Callable[[], Awaitable[int]],
        activity: Activity,
    ) -> None:
        self._desk = desk
        self._inspector = inspector
        self._metrics_text = metrics_text
        self._replicas = replicas
        self._make_snapshot = make_snapshot
        self._activity = activity
        self._proofs = JournalProofs(desk.journal)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("admin")

    async def _execute(self, command: Command, reason: str, what: str) -> Any:
        """Apply an operator's command, and say in the log who did what and why."""
        operator = request_context().principal.account
        result = await self._desk.execute(command)
        self._log.info(what, operator=operator, reason=reason, sequence=result[R_SEQUENCE])
        return result

    @staticmethod
    def _operator() -> str:
        return request_context().principal.account

    # --- books ---

    async def GetBookState(self, request: pb.GetBookStateRequest, context: Any) -> pb.BookState:
        """The book as operators compare it."""
        depth = checked_depth(request.depth)
        desk = self._desk
        # As it stands here, not as it is elsewhere: operators compare instances by it.
        market, units = desk.market(request.symbol)
        message = pb.BookState(
            symbol=market.symbol,
            instance=desk.instance,
            sequence=desk.state.sequence,
            book_hash=book.book_hash(market),
            mode=market.mode,  # type: ignore[arg-type]
            bid_order_count=market.bids.orders,
            ask_order_count=market.asks.orders,
            bid_level_count=len(market.bids.keys),
            ask_level_count=len(market.asks.keys),
            stop_order_count=len(market.stop_buys) + len(market.stop_sells),
            last_price=units.price(market.last_price),
        )
        add_levels(message.bids, market.bids, depth, units)
        add_levels(message.asks, market.asks, depth, units)
        await desk.settle()
        return message

    async def RebuildOrderBook(self, request: pb.RebuildOrderBookRequest, context: Any) -> pb.RebuildOrderBookResponse:
        """Build the book from the journal and compare."""
        market, _ = self._desk.market(request.symbol)
        report = await self._inspector.rebuild(self._desk.seat, market.symbol)
        self._log.info(
            "order book rebuilt from the journal",
            operator=self._operator(),
            reason=request.reason,
            symbol=market.symbol,
            identical=report.identical,
        )
        return pb.RebuildOrderBookResponse(
            symbol=market.symbol,
            sequence=report.sequence,
            hash_before=report.hash_before,
            hash_rebuilt=report.hash_rebuilt,
            identical=report.identical,
            differences=report.differences,
            replayed_commands=report.replayed_commands,
            from_sequence=report.from_sequence,
            order_count=report.order_count,
        )

    async def ValidateOrderBook(
        self, request: pb.ValidateOrderBookRequest, context: Any
    ) -> pb.ValidateOrderBookResponse:
        """Check every invariant."""
        desk = self._desk
        market, _ = desk.market(request.symbol)
        state = desk.state
        checks = [*check_market(state, market), *check_money(state)]
        sequence = state.sequence
        await desk.settle()
        return pb.ValidateOrderBookResponse(
            symbol=market.symbol,
            sequence=sequence,
            valid=all(holds for _, holds, _ in checks),
            checks=[pb.InvariantCheck(name=name, holds=holds, detail=detail) for name, holds, detail in checks],
        )

    def VerifyJournal(
        self, request: replicas_pb.VerifyJournalRequest, context: Any
    ) -> AsyncIterator[replicas_pb.VerifyJournalProgress]:
        """Prove a stretch of the journal."""
        return self._proofs.serve(request.from_sequence, request.to_sequence)

    # --- instances ---

    async def CompareReplicas(
        self, request: replicas_pb.CompareReplicasRequest, context: Any
    ) -> replicas_pb.CompareReplicasResponse:
        """All instances side by side."""
        return await self._replicas.compare(request.symbol)

    async def _leaders_answer(self, request: Any, context: Any) -> Any:
        """The leader's answer, None where this instance leads. It is the leader that puts the call on record."""
        method = request_context().method.rpartition("/")[2]
        return None if self._replicas.leads else await self._replicas.ask_leader(method, request, context)

    @relayed(_leaders_answer)
    async def HandOverLeadership(
        self, request: replicas_pb.HandOverLeadershipRequest, context: Any
    ) -> replicas_pb.HandOverLeadershipResponse:
        """Another instance leads."""
        response = await self._replicas.hand_over()
        self._log.info("leadership handed over", operator=self._operator(), reason=request.reason)
        return response

    @relayed(_leaders_answer)
    async def ActivateRules(
        self, request: replicas_pb.ActivateRulesRequest, context: Any
    ) -> replicas_pb.ActivateRulesResponse:
        """Newer rules hold, once all instances know them."""
        version = request.rules_version
        self._replicas.check_rules(version)
        command = cmd.activate_rules(self._operator(), version)
        result = await self._execute(command, request.reason, f"rules {version} activated")
        return replicas_pb.ActivateRulesResponse(rules_version=version, sequence=result[R_SEQUENCE])

    # --- numbers ---

    async def GetQueueDepth(self, request: pb.GetQueueDepthRequest, context: Any) -> httpbody_pb2.HttpBody:
        """A bare number."""
        return httpbody_pb2.HttpBody(content_type="text/plain", data=f"{self._desk.seat.queue_depth}\n".encode())

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Prometheus text."""
        return httpbody_pb2.HttpBody(content_type="text/plain; version=0.0.4", data=await self._metrics_text())

    async def GetEngineState(self, request: pb.GetEngineStateRequest, context: Any) -> pb.EngineState:
        """Sequence and hash of the whole state."""
        return await self._engine_state()

    async def _engine_state(self) -> pb.EngineState:
        desk = self._desk
        state = desk.state
        message = pb.EngineState(
            instance=desk.instance,
            role=desk.role,
            sequence=state.sequence,
            state_hash=desk.engine.state_hash(),
            epoch=desk.seat.epoch,
            incarnation=desk.journal.incarnation,
            core_mode=self._inspector.core_mode,
            rules_version=state.rules_version,
            snapshot_sequence=desk.snapshot_sequence,
            open_order_count=len(state.orders) - len(state.finished),
            account_count=len(state.accounts),
        )
        await desk.settle()
        message.floor_sequence = await desk.journal.floor()
        return message

    async def CreateSnapshot(self, request: pb.CreateSnapshotRequest, context: Any) -> pb.EngineState:
        """Store a snapshot now."""
        self._desk.snapshot_sequence = await self._make_snapshot()
        self._log.info("snapshot stored", operator=self._operator(), reason=request.reason)
        return await self._engine_state()

    # --- switches ---

    async def EnableCircuitBreaker(self, request: pb.SetSwitchRequest, context: Any) -> pb.Switches:
        """Cancels and reads only."""
        return await self._switch(request, SWITCH_CIRCUIT_BREAKER, on=True)

    async def DisableCircuitBreaker(self, request: pb.SetSwitchRequest, context: Any) -> pb.Switches:
        """Trade again."""
        return await self._switch(request, SWITCH_CIRCUIT_BREAKER, on=False)

    async def EnableNewOrders(self, request: pb.SetSwitchRequest, context: Any) -> pb.Switches:
        """Let new orders in again."""
        return await self._switch(request, SWITCH_ACCEPT_NEW_ORDERS, on=True)

    async def DisableNewOrders(self, request: pb.SetSwitchRequest, context: Any) -> pb.Switches:
        """Refuse new orders."""
        return await self._switch(request, SWITCH_ACCEPT_NEW_ORDERS, on=False)

    async def EnableMaintenanceMode(self, request: pb.SetSwitchRequest, context: Any) -> pb.Switches:
        """Cancels and reads only."""
        return await self._switch(request, SWITCH_MAINTENANCE, on=True)

    async def DisableMaintenanceMode(self, request: pb.SetSwitchRequest, context: Any) -> pb.Switches:
        """End maintenance."""
        return await self._switch(request, SWITCH_MAINTENANCE, on=False)

    async def _switch(self, request: pb.SetSwitchRequest, switch: int, *, on: bool) -> pb.Switches:
        request_id = requests.client_id(request.request_id, "request_id")
        command = cmd.set_switch(self._operator(), switch, on=on, request_id=request_id)
        await self._execute(command, request.reason, f"switch {switch} turned {'on' if on else 'off'}")
        return await self._switches()

    async def GetSwitches(self, request: pb.GetSwitchesRequest, context: Any) -> pb.Switches:
        """The switches as they stand."""
        await self._desk.fresh()
        return await self._switches()

    async def _switches(self) -> pb.Switches:
        state = self._desk.state
        message = pb.Switches(
            accept_new_orders=state.accept_new_orders,
            maintenance_mode=state.maintenance,
            circuit_breaker=state.circuit_breaker,
            sequence=state.sequence,
        )
        await self._desk.settle()
        return message

    # --- assets and markets ---

    async def CreateAsset(self, request: pb.CreateAssetRequest, context: Any) -> types_pb2.Asset:
        """Make an asset."""
        if ASSET_CODE.fullmatch(request.code) is None:
            raise requests.refuse(
                ErrorReason.INVALID_FIELD, "code", "code must be 2 to 10 upper-case letters or digits", request.code
            )
        request_id = requests.client_id(request.request_id, "request_id")
        command = cmd.create_asset(self._operator(), request.code, request.decimals, request_id=request_id)
        result = await self._execute(command, "", f"asset {request.code} made")
        return asset_message(self._desk.state.assets[result[R_COUNT]])

    async def ListAssets(self, request: pb.ListAssetsRequest, context: Any) -> pb.ListAssetsResponse:
        """All assets, by code."""
        size = paging.page_size(request.page_size)
        after = paging.read_token(request.page_token, "assets")
        await self._desk.fresh()
        assets = sorted(
            (asset for asset in self._desk.state.assets if asset.code > after), key=lambda asset: asset.code
        )
        response = pb.ListAssetsResponse(assets=[asset_message(asset) for asset in assets[:size]])
        if len(assets) > size:
            response.next_page_token = paging.make_token(assets[size - 1].code, "assets")
        await self._desk.settle()
        return response

    async def CreateMarket(self, request: pb.CreateMarketRequest, context: Any) -> types_pb2.Market:
        """Make a market."""
        definition = await self._definition(request)
        request_id = requests.client_id(request.request_id, "request_id")
        command = cmd.create_market(self._operator(), definition, request_id=request_id)
        result = await self._execute(command, "", f"market {definition[reg.D_SYMBOL]} made")
        return await self._market(result[R_COUNT])

    async def _definition(self, request: pb.CreateMarketRequest) -> reg.Definition:
        """The definition that a request asks for; whether it keeps the rules of money is the core's to say."""
        desk = self._desk
        base, quote = await desk.find(lambda: (desk.asset(request.base_asset), desk.asset(request.quote_asset)))
        symbol = canonical_symbol(request.symbol or base.code + quote.code)
        if SYMBOL.fullmatch(symbol) is None:
            raise requests.refuse(
                ErrorReason.INVALID_FIELD, "symbol", "symbol must be 2 to 20 letters or digits", symbol
            )
        try:
            price_decimals = decimals_of(request.tick_size)
        except DecimalError:
            raise decimal_error(request.tick_size, "tick_size") from None
        tick = amount_units(request.tick_size, price_decimals, "tick_size")
        lot = amount_units(request.lot_size, base.decimals, "lot_size")
        return (
            symbol,
            base.index,
            quote.index,
            tick,
            price_decimals,
            lot,
            multiple(request.min_quantity, base.decimals, lot, "min_quantity") or 1,
            multiple(request.max_quantity, base.decimals, lot, "max_quantity"),
            optional_units(request.min_notional, quote.decimals, "min_notional"),
            request.maker_fee_ppm,
            request.taker_fee_ppm,
            request.price_band_ppm,
            request.market_protection_ppm or DEFAULT_PROTECTION_PPM,
            request.default_self_trade_prevention or STP_CANCEL_NEWEST,
            multiple(request.reference_price, price_decimals, tick, "reference_price"),
        )

    async def _market(self, index: int) -> types_pb2.Market:
        desk = self._desk
        message = market_message(desk.state.markets[index], desk.units(index), desk.state.sequence)
        await desk.settle()
        return message

    async def UpdateMarket(self, request: pb.UpdateMarketRequest, context: Any) -> types_pb2.Market:
        """Change a market's rules."""
        desk = self._desk
        market, units = await desk.find(lambda: desk.market(request.symbol))
        lot = units.base_per_lot
        changes: dict[int, int] = {}
        if request.HasField("min_quantity"):
            changes[reg.D_MIN_LOTS] = multiple(request.min_quantity, units.base_decimals, lot, "min_quantity") or 1
        if request.HasField("max_quantity"):
            changes[reg.D_MAX_LOTS] = multiple(request.max_quantity, units.base_decimals, lot, "max_quantity")
        if request.HasField("min_notional"):
            changes[reg.D_MIN_NOTIONAL] = optional_units(request.min_notional, units.quote_decimals, "min_notional")
        plain = (
            ("maker_fee_ppm", reg.D_MAKER_PPM),
            ("taker_fee_ppm", reg.D_TAKER_PPM),
            ("price_band_ppm", reg.D_BAND_PPM),
            ("market_protection_ppm", reg.D_PROTECTION_PPM),
            ("default_self_trade_prevention", reg.D_DEFAULT_STP),
        )
        for field, position in plain:
            if request.HasField(field):  # type: ignore[arg-type]
                changes[position] = int(getattr(request, field))
        if not changes:
            raise requests.refuse(ErrorReason.FIELD_REQUIRED, "symbol", "nothing to change was named")
        request_id = requests.client_id(request.request_id, "request_id")
        command = cmd.update_market(self._operator(), market.index, changes, request_id=request_id)
        await self._execute(command, request.reason, f"market {market.symbol} changed")
        return await self._market(market.index)

    async def HaltMarket(self, request: pb.SetMarketModeRequest, context: Any) -> types_pb2.Market:
        """Nothing goes."""
        return await self._set_mode(request, HALTED)

    async def SetMarketCancelOnly(self, request: pb.SetMarketModeRequest, context: Any) -> types_pb2.Market:
        """Cancels only."""
        return await self._set_mode(request, CANCEL_ONLY)

    async def ResumeMarket(self, request: pb.SetMarketModeRequest, context: Any) -> types_pb2.Market:
        """Open again."""
        return await self._set_mode(request, OPEN)

    async def _set_mode(self, request: pb.SetMarketModeRequest, mode: int) -> types_pb2.Market:
        market, _ = await self._desk.find(lambda: self._desk.market(request.symbol))
        request_id = requests.client_id(request.request_id, "request_id")
        command = cmd.set_market_mode(self._operator(), market.index, mode, request_id=request_id)
        await self._execute(command, request.reason, f"market {market.symbol} set to {types_pb2.MarketMode.Name(mode)}")  # type: ignore[arg-type]
        return await self._market(market.index)

    # --- accounts ---

    async def MassCancel(self, request: pb.MassCancelRequest, context: Any) -> pb.MassCancelResponse:
        """The kill switch."""
        if not request.account and not request.symbol:
            raise requests.refuse(ErrorReason.FIELD_REQUIRED, "account", "account or symbol is required")
        if not request.reason:
            raise requests.refuse(ErrorReason.FIELD_REQUIRED, "reason")
        account = requests.account_name(request.account) if request.account else ""
        desk = self._desk
        key = self._key(request)
        market = (await desk.find(lambda: desk.market(request.symbol)))[0].index if request.symbol else -1
        request_id = requests.client_id(request.request_id, "request_id")
        command = cmd.mass_cancel(self._operator(), account, market, key=key, request_id=request_id)
        what = " ".join(part for part in (account or "all", request.symbol, key) if part)
        result = await self._execute(command, request.reason, f"mass cancel of {what}")
        return pb.MassCancelResponse(cancelled_count=result[R_COUNT], sequence=result[R_SEQUENCE])

    def _key(self, request: pb.MassCancelRequest) -> str:
        """The API key whose orders alone are meant, or ""."""
        key = requests.client_id(request.api_key, "api_key")
        if not key:
            return ""
        if not request.account:
            raise requests.refuse(ErrorReason.FIELD_REQUIRED, "account", "whose key it is: account is required")
        if not keys.are_known(self._desk.state):
            raise ServiceError(
                ErrorReason.RULES_NOT_SUPPORTED,
                "no order has a key under these rules: activate newer ones, or leave api_key out",
                metadata={"instance": self._desk.instance, "supported_rules_version": self._desk.state.rules_version},
            )
        return key

    async def ListBusyAccounts(self, request: pb.ListBusyAccountsRequest, context: Any) -> pb.ListBusyAccountsResponse:
        """Who placed more than so many orders lately."""
        return busy_accounts(request, self._activity)

    async def SetAccountLimits(self, request: pb.SetAccountLimitsRequest, context: Any) -> pb.AccountLimits:
        """How many open orders an account may have."""
        account = requests.account_name(request.account)
        request_id = requests.client_id(request.request_id, "request_id")
        command = cmd.set_account_limits(self._operator(), account, request.max_open_orders, request_id=request_id)
        result = await self._execute(command, request.reason, f"limits of {account} set")
        holder = self._desk.state.accounts[account]
        return pb.AccountLimits(
            account=account,
            max_open_orders=request.max_open_orders,
            open_orders=len(holder.orders),
            sequence=result[R_SEQUENCE],
        )


def optional_units(text: str, decimals: int, field: str) -> int:
    """Smallest units of an amount, 0 where it is left out. Raises ServiceError as `units_or_zero`."""
    return units_or_zero(text, decimals, field) if text else 0


def multiple(text: str, decimals: int, unit: int, field: str) -> int:
    """How many `unit`s an amount is, 0 where it is left out. Raises ServiceError INVALID_FIELD for broken ones."""
    count, rest = divmod(optional_units(text, decimals, field), unit)
    if rest:
        raise requests.refuse(ErrorReason.INVALID_FIELD, field, f"{field} must be a multiple of the tick or lot", text)
    return count

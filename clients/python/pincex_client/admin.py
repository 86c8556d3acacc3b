"""What operators do, on the ops listener: markets, switches, the kill switch, credits, comparisons.

Every mutation carries a `request_id`, made here where the caller gives none, and may carry a `reason` for the record.
"""

from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal
from typing import Any

import grpc.aio

from pincex.trading.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    admin_replicas_pb2,
    admin_service_pb2,
    admin_service_pb2_grpc,
)
from pincex_client import models
from pincex_client.audit_trail import AuditTrail
from pincex_client.convert import from_wire, now_timestamp, plain_decimal
from pincex_client.credentials import Fixed
from pincex_client.errors import Unavailable, decode_error
from pincex_client.kyc import KycAdmin
from pincex_client.market_making import MarketMakerAdmin
from pincex_client.requests import enum_value
from pincex_client.settlement import SettlementAdmin
from pincex_client.transport import Caller, Identity, RetryPolicy, Tls, new_id, open_channel, with_request_id
from pincex_client.user_admin import UserAdmin
from pincex_client.venue_feeds import FeedsAdmin
from pincex_client.wallet import WalletAdmin

Amount = Decimal | int | str
PAGE_SIZE = 500


class AdminClient:
    """The operator's calls. Reached through `ExchangeClient.admin`."""

    def __init__(
        self,
        target: str,
        *,
        identity: Identity | None = None,
        policy: RetryPolicy | None = None,
        channel_options: Sequence[tuple[str, int]] = (),
        tls: Tls | None = None,
    ) -> None:
        self.target = target
        self.channel = open_channel(target, channel_options, tls)
        self._caller = Caller(identity if identity is not None else Fixed(), policy or RetryPolicy())
        self._admin = admin_service_pb2_grpc.TradingAdminServiceStub(self.channel)
        self._accounts = account_service_pb2_grpc.AccountServiceStub(self.channel)

    @property
    def users(self) -> UserAdmin:
        """Users, keys and certificates."""
        return UserAdmin(self.channel, self._caller)

    @property
    def audit(self) -> AuditTrail:
        """The audit trail, and its proof."""
        return AuditTrail(self.channel, self._caller)

    @property
    def settlement(self) -> SettlementAdmin:
        """The ledger, and whether it agrees with the engine."""
        return SettlementAdmin(self.channel, self._caller)

    @property
    def wallet(self) -> WalletAdmin:
        """Withdrawals that wait, stops and freezes, the simulated network."""
        return WalletAdmin(self.channel, self._caller)

    @property
    def kyc(self) -> KycAdmin:
        """The review of KYC cases."""
        return KycAdmin(self.channel, self._caller)

    @property
    def market_maker(self) -> MarketMakerAdmin:
        """The exchange's own market maker."""
        return MarketMakerAdmin(self.channel, self._caller)

    @property
    def feeds(self) -> FeedsAdmin:
        """The connections to other venues, and what their prices come to."""
        return FeedsAdmin(self.channel, self._caller)

    async def close(self) -> None:
        """Close the channel."""
        await self.channel.close(grace=None)

    async def _write(self, method: Any, request: Any) -> Any:
        return await self._caller.call(method, request, repeatable=True)

    _read = _write

    # --- Money ------------------------------------------------------------------------------------------------------

    async def credit_account(
        self, account: str, asset: str, amount: Amount, *, request_id: str = "", reason: str = ""
    ) -> models.Balance:
        """Add money to an account, as a deposit would. The same `request_id` moves it once."""
        request = account_service_pb2.CreditAccountRequest(
            account=account,
            asset=asset,
            amount=plain_decimal(amount, "amount"),
            request_id=request_id or new_id(),
            request_time=now_timestamp(),
            reason=reason,
        )
        return from_wire(models.Balance, await self._write(self._accounts.CreditAccount, request))

    async def set_account_limits(
        self, account: str, max_open_orders: int, *, request_id: str = "", reason: str = ""
    ) -> models.AccountLimits:
        """Set how many open orders an account may have; 0: no limit."""
        request = admin_service_pb2.SetAccountLimitsRequest(
            account=account, max_open_orders=max_open_orders, request_id=request_id or new_id(), reason=reason
        )
        return from_wire(models.AccountLimits, await self._write(self._admin.SetAccountLimits, request))

    async def list_busy_accounts(self, *, window_seconds: int = 300, more_than: int = 100) -> models.BusyAccounts:
        """Accounts that placed more orders than that within the window (10 s to an hour, in steps of 10 s), the busiest
        first; all pages. As the instance that answers has seen them go by.
        """
        request = admin_service_pb2.ListBusyAccountsRequest(more_than=more_than, page_size=PAGE_SIZE)
        request.window.FromSeconds(window_seconds)
        accounts: list[models.BusyAccount] = []
        while True:
            page = await self._read(self._admin.ListBusyAccounts, request)
            accounts += [from_wire(models.BusyAccount, one) for one in page.accounts]
            if not page.next_page_token:
                return models.BusyAccounts(tuple(accounts), page.seen.ToNanoseconds() / 1e9)
            request.page_token = page.next_page_token

    # --- Assets and markets -----------------------------------------------------------------------------------------

    async def create_asset(self, code: str, decimals: int, *, request_id: str = "") -> models.Asset:
        """Make an asset with so many digits after the point."""
        request = admin_service_pb2.CreateAssetRequest(code=code, decimals=decimals, request_id=request_id or new_id())
        return from_wire(models.Asset, await self._write(self._admin.CreateAsset, request))

    async def list_assets(self) -> list[models.Asset]:
        """All assets, by code."""
        request = admin_service_pb2.ListAssetsRequest(page_size=PAGE_SIZE)
        assets: list[models.Asset] = []
        while True:
            page = await self._read(self._admin.ListAssets, request)
            assets += [from_wire(models.Asset, asset) for asset in page.assets]
            if not page.next_page_token:
                return assets
            request.page_token = page.next_page_token

    async def create_market(
        self,
        base_asset: str,
        quote_asset: str,
        *,
        tick_size: Amount,
        lot_size: Amount,
        symbol: str = "",
        default_self_trade_prevention: str = "",
        request_id: str = "",
        **rules: Any,
    ) -> models.Market:
        """Make a market, open at once.

        `rules` are further fields of `CreateMarketRequest`: amounts (`min_quantity`, `max_quantity`, `min_notional`,
        `reference_price`) and parts per million (`maker_fee_ppm`, `taker_fee_ppm`, `price_band_ppm`,
        `market_protection_ppm`).
        """
        request = admin_service_pb2.CreateMarketRequest(
            symbol=symbol,
            base_asset=base_asset,
            quote_asset=quote_asset,
            tick_size=plain_decimal(tick_size, "tick_size"),
            lot_size=plain_decimal(lot_size, "lot_size"),
            request_id=request_id or new_id(),
            **_rules(rules),
        )
        if default_self_trade_prevention:
            request.default_self_trade_prevention = enum_value("SelfTradePrevention", default_self_trade_prevention)
        return from_wire(models.Market, await self._write(self._admin.CreateMarket, request))

    async def update_market(
        self,
        symbol: str,
        *,
        default_self_trade_prevention: str = "",
        request_id: str = "",
        reason: str = "",
        **rules: Any,
    ) -> models.Market:
        """Change the rules given, as in `create_market`; tick and lot stay."""
        request = admin_service_pb2.UpdateMarketRequest(
            symbol=symbol, request_id=request_id or new_id(), reason=reason, **_rules(rules)
        )
        if default_self_trade_prevention:
            request.default_self_trade_prevention = enum_value("SelfTradePrevention", default_self_trade_prevention)
        return from_wire(models.Market, await self._write(self._admin.UpdateMarket, request))

    async def set_market_mode(self, symbol: str, mode: str, *, request_id: str = "", reason: str = "") -> models.Market:
        """Set the mode: HALTED (nothing goes), CANCEL_ONLY, or OPEN."""
        methods = {
            "HALTED": self._admin.HaltMarket,
            "CANCEL_ONLY": self._admin.SetMarketCancelOnly,
            "OPEN": self._admin.ResumeMarket,
        }
        request = admin_service_pb2.SetMarketModeRequest(
            symbol=symbol, request_id=request_id or new_id(), reason=reason
        )
        return from_wire(models.Market, await self._write(methods[mode], request))

    # --- Switches and the kill switch -------------------------------------------------------------------------------

    async def get_switches(self) -> models.Switches:
        """The switches as they stand."""
        request = admin_service_pb2.GetSwitchesRequest()
        return from_wire(models.Switches, await self._read(self._admin.GetSwitches, request))

    async def set_switch(self, switch: str, *, on: bool, request_id: str = "", reason: str = "") -> models.Switches:
        """Turn `circuit_breaker`, `accept_new_orders` or `maintenance_mode` on or off."""
        methods = {
            ("circuit_breaker", True): self._admin.EnableCircuitBreaker,
            ("circuit_breaker", False): self._admin.DisableCircuitBreaker,
            ("accept_new_orders", True): self._admin.EnableNewOrders,
            ("accept_new_orders", False): self._admin.DisableNewOrders,
            ("maintenance_mode", True): self._admin.EnableMaintenanceMode,
            ("maintenance_mode", False): self._admin.DisableMaintenanceMode,
        }
        request = admin_service_pb2.SetSwitchRequest(request_id=request_id or new_id(), reason=reason)
        return from_wire(models.Switches, await self._write(methods[switch, on], request))

    async def mass_cancel(
        self, *, account: str = "", symbol: str = "", api_key: str = "", reason: str, request_id: str = ""
    ) -> models.CancelledOrders:
        """Cancel the open orders of an account, of a symbol, or of an account in a symbol; with `api_key` (and its account)
        those that the key placed.
        """
        request = admin_service_pb2.MassCancelRequest(
            account=account, symbol=symbol, api_key=api_key, request_id=request_id or new_id(), reason=reason
        )
        return from_wire(models.CancelledOrders, await self._write(self._admin.MassCancel, request))

    # --- Comparisons ------------------------------------------------------------------------------------------------

    async def engine_state(self) -> models.EngineState:
        """Sequence and hash of the whole state of the instance that answers."""
        request = admin_service_pb2.GetEngineStateRequest()
        return from_wire(models.EngineState, await self._read(self._admin.GetEngineState, request))

    async def book_state(self, symbol: str, *, depth: int = 50) -> models.BookState:
        """The book with its hash and counts."""
        request = admin_service_pb2.GetBookStateRequest(symbol=symbol, depth=depth)
        return from_wire(models.BookState, await self._read(self._admin.GetBookState, request))

    async def validate_order_book(self, symbol: str) -> models.Validation:
        """Check every invariant of a book and of the money behind it."""
        request = admin_service_pb2.ValidateOrderBookRequest(symbol=symbol)
        return from_wire(models.Validation, await self._read(self._admin.ValidateOrderBook, request))

    async def rebuild_order_book(self, symbol: str, *, reason: str = "") -> models.Rebuild:
        """Build the book anew from the journal and compare; repeating it is harmless."""
        request = admin_service_pb2.RebuildOrderBookRequest(symbol=symbol, reason=reason)
        answer = await self._caller.call(self._admin.RebuildOrderBook, request, repeatable=True, attempt_timeout=120.0)
        return from_wire(models.Rebuild, answer)

    # --- Instances --------------------------------------------------------------------------------------------------

    async def compare_replicas(self, symbol: str = "") -> models.ReplicaComparison:
        """All instances of the trading engine side by side, with the hash of a market's book if it is named."""
        request = admin_replicas_pb2.CompareReplicasRequest(symbol=symbol)
        return from_wire(models.ReplicaComparison, await self._read(self._admin.CompareReplicas, request))

    async def hand_over(self, *, reason: str = "") -> models.HandOver:
        """Give leadership to another instance. Tried once: a repeat would give it away once more."""
        request = admin_replicas_pb2.HandOverLeadershipRequest(reason=reason)
        answer = await self._caller.call(self._admin.HandOverLeadership, request, repeatable=False)
        return from_wire(models.HandOver, answer)

    async def activate_rules(self, rules_version: int, *, reason: str = "") -> models.RulesActivation:
        """Let the next version of the matching rules hold, once every instance knows it; repeating it is harmless."""
        request = admin_replicas_pb2.ActivateRulesRequest(rules_version=rules_version, reason=reason)
        return from_wire(models.RulesActivation, await self._write(self._admin.ActivateRules, request))

    # --- The journal ------------------------------------------------------------------------------------------------

    async def create_snapshot(self, *, reason: str = "") -> models.EngineState:
        """Store a snapshot of the state now; answers when it is durable."""
        request = admin_service_pb2.CreateSnapshotRequest(reason=reason, request_time=now_timestamp())
        answer = await self._caller.call(self._admin.CreateSnapshot, request, repeatable=False, deadline=120.0)
        return from_wire(models.EngineState, answer)

    async def verify_journal(
        self, from_sequence: int = 0, to_sequence: int = 0
    ) -> AsyncGenerator[models.JournalVerification]:
        """Prove a stretch of the journal: its progress about once a second, then what was found, with `done`.

        0 means the oldest sequence that is retained, and the head. Closing the iterator ends the verification. Raises
        `ExchangeError`; Unavailable too when the stream ends without a result.
        """
        request = admin_replicas_pb2.VerifyJournalRequest(from_sequence=from_sequence, to_sequence=to_sequence)
        request_id = new_id("r")
        headers = with_request_id(await self._caller.identity.metadata(), request_id)
        stream = self._admin.VerifyJournal(request, metadata=headers)
        done = False
        try:
            async for message in stream:
                done = message.done
                yield from_wire(models.JournalVerification, message)
        except grpc.aio.AioRpcError as failure:
            raise decode_error(failure, request_id) from None
        finally:
            stream.cancel()
        if not done:
            # Over an edge the error of a stream that has begun may look like its end.
            raise Unavailable("the verification ended without a result", reason="UPSTREAM_UNAVAILABLE")

    async def queue_depth(self) -> int:
        """Commands that have arrived and are not durable yet."""
        request = admin_service_pb2.GetQueueDepthRequest()
        answer = await self._read(self._admin.GetQueueDepth, request)
        return int(answer.data.decode("ascii"))


AMOUNT_RULES = frozenset({"min_quantity", "max_quantity", "min_notional", "reference_price"})


def _rules(rules: dict[str, Any]) -> dict[str, Any]:
    return {
        name: plain_decimal(value, name) if name in AMOUNT_RULES else value
        for name, value in rules.items()
        if value is not None
    }

"""The engine and settlement over gRPC, by the internal client. Every call is repeatable: its id makes it happen once."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from exchange.runtime.errors import ErrorReason, reject
from exchange.runtime.paging import MAX_PAGE
from pincex.settlement.v1 import settlement_service_pb2 as settlement_pb
from pincex.settlement.v1 import settlement_service_pb2_grpc
from pincex.trading.v1 import admin_service_pb2 as admin_pb
from pincex.trading.v1 import admin_service_pb2_grpc, funds_service_pb2_grpc
from pincex.trading.v1 import funds_service_pb2 as funds_pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exchange.runtime.internal_client import InternalClient

# Pages of an account's postings in which a deposit whose outcome is long unknown is looked for.
MAX_SEARCHED_PAGES: Final = 20
# Anybody may ask which networks there are: the engine need not hear of each.
ASSETS_AGE_S: Final = 1.0
# What was asked so lately may still be on its way to the ledger.
SETTLED_AFTER_S: Final = 60.0
CLOCKS_APART_S: Final = 60
_FOLLOWING: Final = "RUNNING"


class EngineFunds:
    """See `wallet.engine.Funds`."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client

    async def deposit(
        self, account: str, asset: str, amount: str, request_id: str, reason: str, asked_at: datetime | None = None
    ) -> int:
        """Available grows."""
        request = funds_pb.DepositFundsRequest(
            account=account, asset=asset, amount=amount, request_id=request_id, reason=reason
        )
        return await self._moved("DepositFunds", request, asked_at)

    async def hold(self, account: str, asset: str, amount: str, request_id: str, reason: str) -> int:
        """Available to held."""
        request = funds_pb.HoldFundsRequest(
            account=account, asset=asset, amount=amount, request_id=request_id, reason=reason
        )
        return await self._moved("HoldFunds", request)

    async def settle(self, account: str, hold_id: str, request_id: str, reason: str) -> int:
        """The money of a hold has left."""
        request = funds_pb.SettleHoldRequest(account=account, hold_id=hold_id, request_id=request_id, reason=reason)
        return await self._moved("SettleHold", request)

    async def release(self, account: str, hold_id: str, request_id: str, reason: str) -> int:
        """The money of a hold goes back."""
        request = funds_pb.ReleaseHoldRequest(account=account, hold_id=hold_id, request_id=request_id, reason=reason)
        return await self._moved("ReleaseHold", request)

    async def transfer(
        self,
        account: str,
        to_account: str,
        asset: str,
        amount: str,
        request_id: str,
        reason: str,
        asked_at: datetime | None = None,
    ) -> int:
        """From one account to another."""
        request = funds_pb.TransferFundsRequest(
            account=account, to_account=to_account, asset=asset, amount=amount, request_id=request_id, reason=reason
        )
        return await self._moved("TransferFunds", request, asked_at)

    async def available(self, account: str, asset: str, min_sequence: int) -> str:
        """What the account may use."""
        stub: Any = funds_service_pb2_grpc.FundsServiceStub(self._client.channel)
        request = funds_pb.GetFundsRequest(account=account, min_sequence=min_sequence)
        found = await self._client.call(stub.GetFunds, request, repeatable=True)
        return next((str(balance.available) for balance in found.balances if balance.asset == asset), "0")

    async def _moved(self, method: str, request: Any, asked_at: datetime | None = None) -> int:
        if asked_at is not None:
            request_time = Timestamp()
            request_time.FromDatetime(asked_at)
            request.request_time.CopyFrom(request_time)
        stub: Any = funds_service_pb2_grpc.FundsServiceStub(self._client.channel)
        moved = await self._client.call(getattr(stub, method), request, repeatable=True)
        return int(moved.sequence)


class EngineAssets:
    """See `wallet.engine.Assets`. What is known is not asked for again; the list of all, at most once in ASSETS_AGE_S."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client
        self._known: dict[str, int] = {}
        self._asked_at = float("-inf")

    async def decimals(self, asset: str) -> int:
        """Digits behind the point."""
        if not asset:
            reject(ErrorReason.FIELD_REQUIRED, field="asset")
        found = self._known.get(asset)
        if found is None:
            found = (await self.all()).get(asset)
        if found is None:
            reject(ErrorReason.UNKNOWN_ASSET, asset=asset)
        return found

    async def all(self) -> Mapping[str, int]:
        """Decimals by code."""
        if time.monotonic() - self._asked_at < ASSETS_AGE_S:
            return self._known
        asked_at = time.monotonic()
        stub: Any = admin_service_pb2_grpc.TradingAdminServiceStub(self._client.channel)
        found: dict[str, int] = {}
        token = ""
        while True:
            request = admin_pb.ListAssetsRequest(page_size=MAX_PAGE, page_token=token)
            page = await self._client.call(stub.ListAssets, request, repeatable=True)
            found.update((asset.code, asset.decimals) for asset in page.assets)
            token = page.next_page_token
            if not token:
                self._known, self._asked_at = found, asked_at
                return found


class SettlementLedger:
    """See `wallet.engine.Ledger`."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client

    async def record_loss(self, custody_account: str, asset: str, amount: str, request_id: str, reason: str) -> None:
        """Custody is less by so much."""
        request = settlement_pb.RecordLossRequest(
            custody_account=custody_account, asset=asset, amount=amount, request_id=request_id, reason=reason
        )
        await self._call("RecordLoss", request)

    async def credited(self, account: str, asset: str, request_id: str, since: datetime | None = None) -> int | None:
        """Looked for among the newest postings; the ledger must be caught up to say that it is not there."""
        return await self._posted("deposit", account, asset, request_id, since)

    async def transferred(self, account: str, asset: str, request_id: str, since: datetime) -> int | None:
        """As `credited`."""
        return await self._posted("transfer", account, asset, request_id, since)

    async def _posted(
        self, cause: str, account: str, asset: str, request_id: str, since: datetime | None
    ) -> int | None:
        if since is not None and datetime.now(UTC).timestamp() < since.timestamp() + SETTLED_AFTER_S:
            return None
        status = await self._call("GetSettlementStatus", settlement_pb.GetSettlementStatusRequest())
        caught_up = status.state == _FOLLOWING and status.settled_sequence == status.head_sequence
        # The engine's clock may be behind ours.
        earliest = 0 if since is None else int(since.timestamp()) - CLOCKS_APART_S
        token = ""
        for _ in range(MAX_SEARCHED_PAGES):
            request = settlement_pb.ListPostingsRequest(
                account=account, asset=asset, page_size=MAX_PAGE, page_token=token
            )
            page = await self._call("ListPostings", request)
            for posting in page.postings:
                if posting.reference == request_id and posting.cause == cause:
                    return int(posting.sequence)
            token = page.next_page_token
            if not token or page.postings[-1].posting_time.seconds < earliest:
                return 0 if caught_up else None
        return None

    async def _call(self, method: str, request: Any) -> Any:
        stub: Any = settlement_service_pb2_grpc.SettlementServiceStub(self._client.channel)
        return await self._client.call(getattr(stub, method), request, repeatable=True)

"""The engine's side: its books at one sequence, and the one command that settlement gives it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any, Final

import grpc.aio

from exchange.domain.decimals import parse_units
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.internal_client import InternalClient, refusal_of
from exchange.settlement.reconciliation import EngineBooks, EngineOrder
from pincex.journal.v1 import event_service_pb2 as events_pb
from pincex.journal.v1 import event_service_pb2_grpc
from pincex.trading.v1 import funds_service_pb2 as funds_pb
from pincex.trading.v1 import funds_service_pb2_grpc, types_pb2

SNAPSHOT_S: Final = 40.0


class EngineLink:
    """Calls to the engine."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client

    async def books(self) -> EngineBooks:
        """See `reconciliation.Engine`."""
        found = EngineBooks()
        stub: Any = event_service_pb2_grpc.EventServiceStub(self._client.channel)
        try:
            async with asyncio.timeout(SNAPSHOT_S):
                call = stub.StreamSnapshot(
                    events_pb.StreamSnapshotRequest(in_groups=True), metadata=self._client.metadata()
                )
                async for item in call:
                    _add(found, item)
        except grpc.aio.AioRpcError as error:
            raise refusal_of(error) from None
        except TimeoutError:
            raise ServiceError(ErrorReason.UPSTREAM_TIMEOUT, "the engine's snapshot took too long") from None
        return found

    async def transfer(
        self, account: str, to_account: str, asset: str, amount: str, request_id: str, reason: str
    ) -> int:
        """See `corrections.Funds`."""
        request = funds_pb.TransferFundsRequest(
            account=account, to_account=to_account, asset=asset, amount=amount, request_id=request_id, reason=reason
        )
        stub: Any = funds_service_pb2_grpc.FundsServiceStub(self._client.channel)
        moved = await self._client.call(stub.TransferFunds, request, repeatable=True)
        return int(moved.sequence)


def _add(books: EngineBooks, item: events_pb.SnapshotItem) -> None:
    """One item of a snapshot; assets come before what is counted in them."""
    kind = item.WhichOneof("item")
    if kind == "head":
        books.sequence = item.head.sequence
    elif kind == "asset":
        books.decimals[item.asset.code] = item.asset.decimals
    elif kind in ("balance", "balances"):
        # One by one from an engine of an older build.
        for balance in item.balances.balances or [item.balance]:
            decimals = books.decimals[balance.asset]
            books.balances[balance.account, balance.asset] = (
                parse_units(balance.available, decimals),
                parse_units(balance.held, decimals),
            )
    elif kind in ("order", "orders"):
        for order in item.orders.orders or [item.order]:
            books.orders[int(order.order_id)] = EngineOrder(
                order.account,
                order.symbol,
                types_pb2.OrderStatus.Name(order.status),
                _plain(order.filled_quantity),
                _plain(order.open_quantity),
            )


def _plain(text: str) -> str:
    """A decimal without zeros at its end, as the ledger's side is written, too."""
    return f"{Decimal(text).normalize():f}"

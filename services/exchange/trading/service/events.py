"""EventService: the internal bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain, groupby, islice
from typing import Any, Final

from exchange.runtime.errors import ErrorReason, ServiceError, message_of
from exchange.runtime.feeds.notices import HEARTBEAT_S
from exchange.trading.core.book import orders_in_priority
from exchange.trading.feeds.hub import Hub
from exchange.trading.sequencer import Committed
from exchange.trading.service.desk import Desk
from exchange.trading.service.event_messages import EventTranslator
from exchange.trading.service.messages import amounts_message, asset_message, market_message, order_message
from exchange.trading.service.streaming import ARRIVAL_WAIT_S, Places, durable
from pincex.journal.v1 import event_service_pb2 as pb
from pincex.journal.v1 import event_service_pb2_grpc

# Commands. Who reads a past of more than this gets it with pauses, each so many times as long as the making of a frame took:
# orders come first, and whoever is far behind is limited by what he does with the events.
FAR_BEHIND: Final = 2_000
REST: Final = 2.0
# Balances or orders in one message of a snapshot in groups: nobody else is served while one is made.
GROUP: Final = 100
# Order ids in one message of a snapshot.
RESTING_AT_ONCE: Final = 20_000


class EventService(event_service_pb2_grpc.EventServiceServicer):
    """See `proto/pincex/journal/v1/event_service.proto`."""

    def __init__(self, desk: Desk, hub: Hub, places: Places) -> None:
        self._desk = desk
        self._hub = hub
        self._places = places

    async def StreamEvents(self, request: pb.StreamEventsRequest, context: Any) -> AsyncIterator[pb.EventBatch]:
        """Durable events from a sequence on."""
        hub = self._hub
        cores = hub.cores
        first = max(request.from_sequence, 1)
        if request.resume_token:
            first = (await self._places.read(request.resume_token)).sequence + 1
        _ = self._desk.seat
        if not await hub.reaches(first - 1, ARRIVAL_WAIT_S):
            raise ServiceError(ErrorReason.SEQUENCE_IN_FUTURE, metadata={"head_sequence": hub.head_sequence})
        floor = await self._desk.journal.floor()
        if first < floor:
            raise ServiceError(ErrorReason.SEQUENCE_NOT_RETAINED, metadata={"floor_sequence": floor})
        translator = EventTranslator(self._desk)
        last = first - 1
        token = request.resume_token
        while True:
            async for committed in durable(hub, last + 1):
                started = time.perf_counter()
                batch = self._batch(committed, last, translator)
                rest_s = REST * (time.perf_counter() - started)
                last, token = committed.last_sequence, batch.resume_token
                yield batch
                if hub.head_sequence - last > FAR_BEHIND:
                    await asyncio.sleep(rest_s)
            if hub.closed or hub.cores != cores:
                break
            if not await hub.wait_beyond(last, HEARTBEAT_S):
                yield pb.EventBatch(
                    first_sequence=last,
                    last_sequence=last,
                    prev_sequence=last,
                    resume_token=token,
                    head_sequence=hub.head_sequence,
                )
        reason = hub.end_reason or (ErrorReason.DRAINING if hub.cores == cores else ErrorReason.NOT_READY)
        yield pb.EventBatch(
            first_sequence=last,
            last_sequence=last,
            prev_sequence=last,
            resume_token=token,
            head_sequence=hub.head_sequence,
            end_reason=ErrorReason.Name(reason),  # type: ignore[arg-type]
            end_message=message_of(reason),
        )

    def _batch(self, committed: Committed, after: int, translator: EventTranslator) -> pb.EventBatch:
        first = max(committed.first_sequence, after + 1)
        batch = pb.EventBatch(
            first_sequence=first,
            last_sequence=committed.last_sequence,
            prev_sequence=after,
            resume_token=self._places.token(committed.last_sequence, committed.frame_hash),
            frame_hash=committed.frame_hash,
            head_sequence=self._hub.head_sequence,
        )
        for offset in range(first - committed.first_sequence, len(committed.events)):
            sequence = committed.first_sequence + offset
            for index, event in enumerate(committed.events[offset]):
                translator.fill(batch.events.add(), event, sequence, index, committed.time_ns)
        return batch

    async def StreamSnapshot(self, request: pb.StreamSnapshotRequest, context: Any) -> AsyncIterator[pb.SnapshotItem]:
        """The state at one durable sequence: taken at one moment, let out once it is durable."""
        head, items = self._taken()
        await self._desk.settle()
        async for committed in durable(self._hub, max(head.sequence, 1)):
            head.resume_token = self._places.token(head.sequence, committed.frame_hash)
            break
        yield pb.SnapshotItem(head=head)
        for item in grouped(items) if request.in_groups else items:
            yield item

    def _taken(self) -> tuple[pb.SnapshotHead, Iterator[pb.SnapshotItem]]:
        """The state of this moment, whatever happens to it before the items are asked for."""
        desk = self._desk
        state = desk.state
        sequence = state.sequence
        head = pb.SnapshotHead(
            sequence=sequence, state_hash=desk.engine.state_hash(), rules_version=state.rules_version
        )
        # There are many, and nobody is served while they are looked at: their messages are made as they go out.
        balances = [
            (account.name, state.assets[asset], balance.available, balance.held)
            for account in state.accounts.values()
            for asset, balance in account.balances.items()
        ]
        shown = (pb.SnapshotItem(balance=amounts_message(*one, sequence)) for one in balances)
        return head, chain(self._rules(), shown, self._orders())

    def _rules(self) -> list[pb.SnapshotItem]:
        """Switches, assets and markets."""
        desk = self._desk
        state = desk.state
        sequence = state.sequence
        items = [
            pb.SnapshotItem(
                switches=pb.SwitchesChanged(
                    accept_new_orders=state.accept_new_orders,
                    maintenance_mode=state.maintenance,
                    circuit_breaker=state.circuit_breaker,
                )
            ),
        ]
        items.extend(pb.SnapshotItem(asset=asset_message(asset)) for asset in state.assets)
        items.extend(
            pb.SnapshotItem(market=market_message(market, desk.units(market.index), sequence))
            for market in state.markets
        )
        return items

    def _orders(self) -> list[pb.SnapshotItem]:
        """Open orders, and which rest."""
        desk = self._desk
        state = desk.state
        items = [
            pb.SnapshotItem(order=order_message(order, desk.units(order.market.index)))
            for account in state.accounts.values()
            for order in account.orders.values()
        ]
        for market in state.markets:
            resting = [order.order_id for side in (market.bids, market.asks) for order in orders_in_priority(side)]
            items.extend(
                pb.SnapshotItem(
                    resting=pb.RestingOrders(symbol=market.symbol, order_ids=resting[first : first + RESTING_AT_ONCE])
                )
                for first in range(0, len(resting), RESTING_AT_ONCE)
            )
        return items


def grouped(items: Iterable[pb.SnapshotItem]) -> Iterator[pb.SnapshotItem]:
    """The same, up to GROUP balances that follow each other as one item, and so orders."""
    for kind, same in groupby(items, lambda item: item.WhichOneof("item")):
        if kind not in ("balance", "order"):
            yield from same
            continue
        while group := list(islice(same, GROUP)):
            if kind == "balance":
                yield pb.SnapshotItem(balances=pb.BalanceGroup(balances=[item.balance for item in group]))
            else:
                yield pb.SnapshotItem(orders=pb.OrderGroup(orders=[item.order for item in group]))

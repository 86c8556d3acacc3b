"""StreamOrderEvents: what happens to an account's orders, and its fills."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Final

from exchange.runtime.drain import Drain
from exchange.runtime.errors import ErrorReason
from exchange.runtime.feeds.notices import HEARTBEAT_S, end_message, set_time
from exchange.runtime.feeds.tokens import Position
from exchange.trading import codec
from exchange.trading.core.commands import P_SIDE
from exchange.trading.core.events import Event
from exchange.trading.feeds.hub import Hub
from exchange.trading.service.account_reader import follow_account
from exchange.trading.service.desk import Desk
from exchange.trading.service.messages import order_message
from exchange.trading.service.order_events import CommandTranslator, Static, concerns, orders_in, static_of
from exchange.trading.service.streaming import AccountStreams, Places, durable, readable
from pincex.trading.v1 import order_service_pb2 as pb
from pincex.trading.v1 import types_pb2

SNAPSHOT_ORDERS: Final = 500
"""Open orders in one snapshot message."""


class OrderStreams:
    """All order streams of an instance."""

    def __init__(self, desk: Desk, hub: Hub, places: Places, drain: Drain) -> None:
        self._desk = desk
        self._hub = hub
        self._places = places
        self._drain = drain
        self._open = AccountStreams()

    async def serve(self, resume_token: str, account: str) -> AsyncIterator[pb.OrderEvent]:
        """One subscriber's stream."""
        with self._open.one(account):
            async with aclosing(self._stream(resume_token, account)) as messages:
                async for message in messages:
                    yield message

    async def _stream(self, resume_token: str, account: str) -> AsyncGenerator[pb.OrderEvent, None]:
        places = self._places.of(f"orders:{account}")
        if resume_token:
            stream = _Stream(self._desk, places, account, await places.read(resume_token))
            token = resume_token
        else:
            orders, sequence, frame_hash = await self._open_orders(account)
            token = places.token(sequence, frame_hash)
            stream = _Stream(self._desk, places, account, Position("", 0, sequence, -1, ""))
            for message in _snapshot(orders, sequence, token):
                yield message
        stream.token = token
        async for message in self._follow(stream):
            yield message

    async def _open_orders(self, account: str) -> tuple[list[types_pb2.Order], int, bytes]:
        """Open orders, with a durable sequence at which they stood so.

        The core may be ahead of the journal: orders and sequence are taken at one moment and let out once durable.
        """
        desk = self._desk
        sequence = desk.state.sequence
        holder = desk.account(account)
        orders = [
            order_message(order, desk.units(order.market.index))
            for order in (holder.orders.values() if holder is not None else ())
        ]
        await desk.settle()
        async for committed in durable(self._hub, max(sequence, 1)):
            return orders, sequence, committed.frame_hash
        return orders, sequence, self._hub.head_hash

    async def _follow(self, stream: _Stream) -> AsyncIterator[pb.OrderEvent]:
        # Of a sequence that was seen in part, the rest comes first.
        after = stream.sequence if stream.index < 0 else stream.sequence - 1
        async for command in follow_account(self._hub, stream.account, after, HEARTBEAT_S):
            if command is None:
                yield stream.heartbeat(self._hub.head_sequence, self._desk.clock.time_ns())
                continue
            found = await self._forgotten(command.events, stream.account)
            for message in stream.messages(
                command.sequence, command.time_ns, command.frame_hash, command.events, found
            ):
                yield message
        if self._drain.is_set():
            yield stream.drain_notice(self._desk.clock.time_ns() + int((self._drain.time_remaining() or 0.0) * 1e9))
        yield stream.end(self._hub.end_reason or ErrorReason.DRAINING)

    async def _forgotten(self, events: list[Event], account: str) -> dict[int, Static]:
        """Orders that the core no longer keeps, from the frame of their acceptance: their number is its sequence."""
        known = self._desk.state.orders
        found: dict[int, Static] = {}
        for event in events:
            if not concerns(event, account):
                continue
            for order_id in orders_in(event):
                if order_id in known or order_id in found:
                    continue
                with readable():
                    async for frame in self._desk.journal.read(order_id, to_sequence=order_id):
                        command = codec.decode_commands(frame.commands)[order_id - frame.first_sequence]
                        found[order_id] = Static(command[P_SIDE], command, frame.time_ns)
        return found


class _Stream:
    """Where one subscriber stands. `index` is how many messages of `sequence` it has, -1 for all."""

    def __init__(self, desk: Desk, places: Places, account: str, place: Position) -> None:
        self._desk = desk
        self._places = places
        self.account = account
        self.sequence = place.sequence
        self.index = place.index
        self.token = ""

    def messages(
        self, sequence: int, time_ns: int, frame_hash: bytes, events: list[Event], found: dict[int, Static]
    ) -> Iterator[pb.OrderEvent]:
        """The messages of one command that have not been seen yet."""
        seen = max(self.index, 0) if sequence == self.sequence else 0
        number = 0
        for message in self._translate(sequence, time_ns, events, found):
            number += 1
            if number <= seen:
                continue
            message.sequence = sequence
            message.prev_sequence = self.sequence
            self.sequence, self.index = sequence, number
            self.token = message.resume_token = self._places.token(sequence, frame_hash, number)
            yield message

    def _translate(
        self, sequence: int, time_ns: int, events: list[Event], found: dict[int, Static]
    ) -> Iterator[pb.OrderEvent]:
        state = self._desk.state

        def lookup(order_id: int) -> Static | None:
            order = state.orders.get(order_id)
            return static_of(order) if order is not None else found.get(order_id)

        translator = CommandTranslator(
            self.account, sequence, time_ns, lookup, self._desk.units, lambda market: state.markets[market].default_stp
        )
        for event in events:
            yield from translator.messages(event)

    def _again(self, message: pb.OrderEvent) -> pb.OrderEvent:
        """Something that is no event stands at the place of the last one."""
        message.sequence = message.prev_sequence = self.sequence
        message.resume_token = self.token
        return message

    def heartbeat(self, head_sequence: int, time_ns: int) -> pb.OrderEvent:
        """All is well."""
        message = pb.OrderEvent()
        message.heartbeat.head_sequence = head_sequence
        message.heartbeat.resume_token = self.token
        set_time(message.heartbeat.server_time, time_ns)
        return self._again(message)

    def drain_notice(self, deadline_ns: int) -> pb.OrderEvent:
        """The server is about to stop."""
        message = pb.OrderEvent()
        message.drain.resume_token = self.token
        set_time(message.drain.deadline_time, deadline_ns)
        return self._again(message)

    def end(self, reason: int) -> pb.OrderEvent:
        """The last message."""
        return self._again(pb.OrderEvent(end=end_message(reason, self.token)))


def _snapshot(orders: list[types_pb2.Order], sequence: int, token: str) -> Iterator[pb.OrderEvent]:
    parts = [orders[at : at + SNAPSHOT_ORDERS] for at in range(0, len(orders), SNAPSHOT_ORDERS)] or [[]]
    for number, part in enumerate(parts):
        complete = number == len(parts) - 1
        yield pb.OrderEvent(
            sequence=sequence,
            resume_token=token if complete else "",
            snapshot=pb.OrdersSnapshot(orders=part, complete=complete),
        )

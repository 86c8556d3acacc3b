"""OrderSession: batches of commands in, batches of results out, in order, over one connection after another.

The session itself is state of the core. Here is what belongs to connections: one at a time for a session, to whichever
instance, and how many commands are under way. The timers of lost connections are in `attendance.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

from exchange.domain.symbols import is_client_id
from exchange.runtime.drain import Drain
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.notices import HEARTBEAT_S, set_time
from exchange.runtime.principal import Principal
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import C_ACCOUNT, C_NUMBER, C_SESSION, Command
from exchange.trading.core.constants import SESSION_ATTACHED, SESSION_RESULT_WINDOW
from exchange.trading.core.events import (
    E_KIND,
    R_COUNT,
    R_REASON,
    R_SEQUENCE,
    SC_ACCOUNT,
    SC_SESSION,
    SC_STATE,
    SESSION_CHANGED,
    Result,
)
from exchange.trading.core.reasons import COMMAND_NUMBER_OUT_OF_WINDOW
from exchange.trading.sequencer import Committed
from exchange.trading.service import requests
from exchange.trading.service.admittance import Admittance
from exchange.trading.service.attendance import Key, SessionAttendance
from exchange.trading.service.desk import Desk
from exchange.trading.service.order_lookup import units_of_order
from exchange.trading.service.results import command_result, refused_result
from exchange.trading.service.units import MarketUnits
from pincex.trading.v1 import order_commands_pb2, types_pb2
from pincex.trading.v1 import order_session_pb2 as pb

MAX_BATCH: Final = 1_000
MAX_OUTSTANDING: Final = 4_000
DEFAULT_GRACE_S: Final = 5.0
MAX_GRACE_S: Final = 60.0
MAX_DEAD_MAN_S: Final = 300.0
NOT_NOW: Final = frozenset({ErrorReason.OVERLOADED, ErrorReason.JOURNAL_UNAVAILABLE, ErrorReason.NOT_READY})

Slot = Command | ServiceError


@dataclass(slots=True)
class _Batch:
    """A batch under way; `slots` are its commands, or why one did not get so far, `parts` their submissions."""

    first_number: int
    slots: list[Slot]
    parts: list[asyncio.Future[list[Result]]]
    unsettled: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Connection:
    """One connection of a session."""

    principal: Principal
    session: str
    opened_sequence: int = 0
    """At which it was attached; 0 while that is under way."""
    attached_later: int = 0
    """The newest attachment of this session that was seen meanwhile."""
    expected: int = 1
    outstanding: int = 0
    room: asyncio.Event = field(default_factory=asyncio.Event)
    outbox: asyncio.Queue[_Batch | pb.OrderSessionResponse | ServiceError | None] = field(
        default_factory=lambda: asyncio.Queue(MAX_OUTSTANDING)
    )
    closed_by_client: bool = False
    newest: asyncio.Future[list[Result]] | None = None
    """The submission that was queued last."""
    unsettled: dict[str, MarketUnits | None] = field(default_factory=dict)
    """Scales of orders, by client order id, that were submitted here and have no result yet; None: of two markets."""

    def note_unsettled(self, client_order_id: str, units: MarketUnits) -> None:
        """An order was submitted."""
        known = self.unsettled.setdefault(client_order_id, units)
        if known is not units:
            self.unsettled[client_order_id] = None

    @property
    def key(self) -> Key:
        """Which session it is."""
        return (self.principal.account, self.session)


class Sessions:
    """The connections of an instance to sessions; a sink of the hub."""

    def __init__(self, desk: Desk, drain: Drain, attendance: SessionAttendance, admittance: Admittance) -> None:
        self._desk = desk
        self._admittance = admittance
        self._drain = drain
        self._attendance = attendance
        self._connections: dict[Key, _Connection] = {}
        attendance.on_dead_man = self._dead_man

    @property
    def open_count(self) -> int:
        """Sessions that are connected."""
        return len(self._connections)

    # --- what other instances do ---

    def frame(self, committed: Committed) -> None:
        """See what becomes of sessions: of those connected here, whether they are attached elsewhere, or ended."""
        sequence = committed.first_sequence
        for events in committed.events:
            for event in events:
                if event[E_KIND] == SESSION_CHANGED:
                    key = (event[SC_ACCOUNT], event[SC_SESSION])
                    connection = self._connections.get(key)
                    if connection is not None:
                        self._session_changed(connection, event[SC_STATE], sequence)
                    elif event[SC_STATE] == SESSION_ATTACHED:
                        self._attendance.attached_elsewhere(key)
            sequence += 1

    def reset(self) -> None:
        """Another core serves: sessions live on in it."""

    def _session_changed(self, connection: _Connection, state: int, sequence: int) -> None:
        if not connection.opened_sequence:
            if state == SESSION_ATTACHED:
                connection.attached_later = sequence
        elif sequence > connection.opened_sequence:
            taken = state == SESSION_ATTACHED
            self._end(
                connection, ServiceError(ErrorReason.SESSION_TAKEN_OVER if taken else ErrorReason.SESSION_NOT_FOUND)
            )

    # --- a connection ---

    async def serve(
        self, incoming: AsyncIterator[pb.OrderSessionRequest], principal: Principal
    ) -> AsyncIterator[pb.OrderSessionResponse]:
        """One connection from its first message to its last."""
        iterator = aiter(incoming)
        try:
            first = await anext(iterator)
        except StopAsyncIteration:
            raise ServiceError(ErrorReason.PROTOCOL_VIOLATION, "the first message must be `open`") from None
        if first.WhichOneof("message") != "open":
            raise ServiceError(ErrorReason.PROTOCOL_VIOLATION, "the first message must be `open`")
        connection, opened = await self._open(first.open, principal)
        yield pb.OrderSessionResponse(opened=opened)
        reader = asyncio.create_task(self._read(iterator, connection))
        watcher = asyncio.create_task(self._watch_drain(connection))
        try:
            async for response in self._responses(connection):
                yield response
        finally:
            for task in (reader, watcher):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            self._disconnected(connection)

    async def _open(self, request: pb.OpenSession, principal: Principal) -> tuple[_Connection, pb.SessionOpened]:
        account, name = principal.account, request.session_id
        if not is_client_id(name):
            raise requests.refuse(
                ErrorReason.INVALID_FIELD, "session_id", "session_id must be 1 to 64 printable ASCII characters", name
            )
        grace = _seconds(request, "grace", 0.0, MAX_GRACE_S, DEFAULT_GRACE_S)
        dead_man = _seconds(request, "dead_man_timeout", 1.0, MAX_DEAD_MAN_S, 0.0)
        await self._desk.fresh()
        holder = self._desk.account(account)
        resumed = holder is not None and name in holder.sessions
        command = cmd.open_session(
            account,
            name,
            cancel_on_disconnect=request.cancel_on_disconnect,
            grace_ms=int(grace * 1000),
            dead_man_ms=int(dead_man * 1000),
        )
        key = (account, name)
        older = self._connections.get(key)
        if older is not None:
            self._end(older, ServiceError(ErrorReason.SESSION_TAKEN_OVER))
        connection = self._connections[key] = _Connection(principal, name)
        self._attendance.attached(key)
        try:
            result = await self._desk.execute(command)
        except BaseException:
            self._disconnected(connection)
            raise
        connection.expected = result[R_COUNT] + 1
        connection.opened_sequence = result[R_SEQUENCE]
        if connection.attached_later > connection.opened_sequence:
            self._disconnected(connection)
            raise ServiceError(ErrorReason.SESSION_TAKEN_OVER)
        self._attendance.heard_from(key)
        return connection, pb.SessionOpened(
            session_id=name,
            last_number=result[R_COUNT],
            result_window=SESSION_RESULT_WINDOW,
            max_batch_size=MAX_BATCH,
            max_outstanding=MAX_OUTSTANDING,
            resumed=resumed,
        )

    @staticmethod
    def _end(connection: _Connection, error: ServiceError) -> None:
        """End a connection now, whatever waits in its way out: a client that does not read may have filled it."""
        while not connection.outbox.empty():
            connection.outbox.get_nowait()
        connection.outbox.put_nowait(error)

    async def _read(self, incoming: AsyncIterator[pb.OrderSessionRequest], connection: _Connection) -> None:
        """Take what the client sends until it stops, breaks the protocol, or closes."""
        outbox = connection.outbox
        try:
            async for request in incoming:
                kind = request.WhichOneof("message")
                if kind == "batch":
                    await self._take_batch(request.batch, connection)
                elif kind == "ping":
                    pong = pb.SessionPong(nonce=request.ping.nonce, head_sequence=self._desk.seat.committed_sequence)
                    await outbox.put(pb.OrderSessionResponse(pong=pong))
                elif kind == "close":
                    connection.closed_by_client = True
                    await outbox.put(None)
                    return
                else:
                    raise ServiceError(
                        ErrorReason.PROTOCOL_VIOLATION, "`open` comes once, and a message is never empty"
                    )
                if self._connections.get(connection.key) is connection:
                    self._attendance.heard_from(connection.key)
            await outbox.put(None)
        except ServiceError as error:
            await outbox.put(error)

    async def _take_batch(self, batch: pb.CommandBatch, connection: _Connection) -> None:
        count = len(batch.commands)
        if not 1 <= count <= MAX_BATCH:
            raise ServiceError(ErrorReason.BATCH_TOO_LARGE, metadata={"limit": MAX_BATCH})
        first = batch.first_number
        if not 1 <= first <= connection.expected:
            raise ServiceError(
                ErrorReason.COMMAND_NUMBER_OUT_OF_WINDOW, metadata={"expected": connection.expected, "got": first}
            )
        while connection.outstanding and connection.outstanding + count > MAX_OUTSTANDING:
            connection.room.clear()
            await connection.room.wait()
        taken = await self._submit(batch, connection)
        connection.outstanding += count
        connection.expected = max(connection.expected, first + count)
        await connection.outbox.put(taken)

    async def _submit(self, batch: pb.CommandBatch, connection: _Connection) -> _Batch:
        """Queue the commands of a batch. A change needs the scales of its order's market. Those of orders that this
        connection has placed are known, though nobody may have applied them yet: leadership may change in between.
        """
        desk = self._desk
        account, session = connection.key
        principal = connection.principal
        sender, limited = self._admittance.sender(principal), self._admittance.is_limited(principal)
        number = batch.first_number
        taken = _Batch(number, [], [])
        pending: list[Command] = []
        scales: dict[str, MarketUnits] = {}
        for item in batch.commands:
            kind = item.WhichOneof("command")
            try:
                if kind == "place":
                    place = item.place
                    units = scales.get(place.symbol)
                    if units is None:
                        symbol = place.symbol
                        units = (await desk.find(lambda symbol=symbol: desk.market(symbol)))[1]  # type: ignore[misc]
                        scales[symbol] = units
                    command = requests.place(place, units, account, session, number, sender)
                    if limited:
                        self._admittance.count(principal, command)
                    if place.client_order_id:
                        connection.note_unsettled(place.client_order_id, units)
                        taken.unsettled.append(place.client_order_id)
                elif kind == "cancel":
                    command = requests.cancel(item.cancel, account, session, number)
                elif kind in {"replace", "reduce"}:
                    if pending:
                        self._enqueue(pending, taken, connection)
                        pending = []
                    change = item.replace if kind == "replace" else item.reduce
                    units = await self._units_of(change, connection)
                    command = _changed(change, units, connection, number)
                    if limited and kind == "replace":
                        self._admittance.count(principal, command)
                elif kind == "cancel_all":
                    symbol = item.cancel_all.symbol
                    market = desk.market(symbol)[0].index if symbol else -1
                    command = requests.cancel_all(item.cancel_all, market, account, session, number)
                else:
                    raise ServiceError(ErrorReason.PROTOCOL_VIOLATION, "the command is empty or not known")
                pending.append(command)
                taken.slots.append(command)
            except ServiceError as error:
                if error.reason in NOT_NOW:
                    # Not this command's fault: the connection ends, and a repeat with the same numbers is safe.
                    raise
                taken.slots.append(error)
            number += 1
        if pending:
            self._enqueue(pending, taken, connection)
        return taken

    def _enqueue(self, commands: list[Command], batch: _Batch, connection: _Connection) -> None:
        """Queue commands of a batch. Raises ServiceError where what came before them has failed: applied without it, they
        would forbid its numbers for ever.
        """
        before = connection.newest
        if before is not None and before.done() and (before.cancelled() or before.exception() is not None):
            raise ServiceError(ErrorReason.JOURNAL_UNAVAILABLE, "what came before is of unknown outcome")
        connection.newest = self._desk.enqueue(commands)
        batch.parts.append(connection.newest)

    async def _units_of(self, change: requests.Changing, connection: _Connection) -> MarketUnits:
        """The scales of the order that a change names: of one that is known, else of one that this connection has placed
        and nobody may have applied yet, for it was forwarded, or leadership changes. Raises ServiceError ORDER_NOT_FOUND.
        """
        desk = self._desk
        desk.seat.apply_now()
        try:
            return await desk.find(lambda: units_of_order(desk, connection.principal.account, change))
        except ServiceError as error:
            # Only after the core was asked: the id may be that of an older order in another market.
            units = connection.unsettled.get(change.client_order_id) if not change.order_id else None
            if units is None or error.reason not in (ErrorReason.ORDER_NOT_FOUND, ErrorReason.NOT_READY):
                raise
            return units

    async def _responses(self, connection: _Connection) -> AsyncIterator[pb.OrderSessionResponse]:
        while True:
            try:
                # Not `wait_for`: Python 3.11's may lose what comes as the time runs out, and a cancellation too.
                async with asyncio.timeout(HEARTBEAT_S):
                    item = await connection.outbox.get()
            except TimeoutError:
                yield self._heartbeat()
                continue
            if item is None:
                return
            if isinstance(item, ServiceError):
                raise item
            if isinstance(item, _Batch):
                yield await self._results(item)
                for client_order_id in item.unsettled:
                    connection.unsettled.pop(client_order_id, None)
                connection.outstanding -= len(item.slots)
                connection.room.set()
            else:
                yield item
                if item.HasField("end"):
                    return

    async def _results(self, batch: _Batch) -> pb.OrderSessionResponse:
        parts = [await self._desk.settled(part) for part in batch.parts]
        results = iter([result for part in parts for result in part])
        response = pb.OrderSessionResponse()
        response.results.first_number = batch.first_number
        target = response.results.results
        left_out: Callable[[int], bool] | None = None
        for slot in batch.slots:
            if isinstance(slot, ServiceError):
                target.append(refused_result(slot))
                continue
            result = next(results)
            if result[R_REASON] == COMMAND_NUMBER_OUT_OF_WINDOW:
                if left_out is None:
                    left_out = await self._left_out(slot, result)
                if left_out(slot[C_NUMBER]):
                    target.append(refused_result(ServiceError(ErrorReason.COMMAND_NUMBER_USED)))
                    continue
            command_result(self._desk, result, slot, target.add())
        return response

    async def _left_out(self, command: Command, result: Result) -> Callable[[int], bool]:
        """Tells of a number whether the session remembers what came before and after it, but not the number itself: its
        command was refused before the journal, beyond a rate say, and never applied.
        """
        with contextlib.suppress(ServiceError):
            await self._desk.reach(result[R_SEQUENCE])
        account = self._desk.account(command[C_ACCOUNT])
        session = account.sessions.get(command[C_SESSION]) if account is not None else None
        if session is None:
            return lambda _: False
        known = {number for number, _ in session.results}
        # Without results that were forgotten it remembers all from the first on.
        oldest = min(known) if len(known) == SESSION_RESULT_WINDOW else 1
        last = session.last_number
        return lambda number: oldest <= number <= last and number not in known

    def _heartbeat(self) -> pb.OrderSessionResponse:
        response = pb.OrderSessionResponse()
        response.heartbeat.head_sequence = self._desk.seat.committed_sequence
        set_time(response.heartbeat.server_time, self._desk.clock.time_ns())
        return response

    async def _watch_drain(self, connection: _Connection) -> None:
        """Tell the client that the server stops; it may finish what is under way, and attach again elsewhere."""
        await self._drain.wait()
        notice = pb.OrderSessionResponse()
        remaining = self._drain.time_remaining() or 0.0
        set_time(notice.drain.deadline_time, self._desk.clock.time_ns() + int(remaining * 1e9))
        await connection.outbox.put(notice)
        end = types_pb2.StreamEnd(reason="DRAINING", message="the server stops: attach to the session again")
        await connection.outbox.put(pb.OrderSessionResponse(end=end))

    # --- its end ---

    def _disconnected(self, connection: _Connection) -> None:
        key = connection.key
        if self._connections.get(key) is not connection:
            return
        del self._connections[key]
        self._attendance.detached(key, for_good=connection.closed_by_client)

    def _dead_man(self, key: Key) -> None:
        connection = self._connections.get(key)
        if connection is not None:
            self._end(connection, ServiceError(ErrorReason.SESSION_NOT_FOUND, "the dead-man timer ran out"))


def _changed(change: requests.Changing, units: MarketUnits, connection: _Connection, number: int) -> Command:
    account, session = connection.key
    if isinstance(change, order_commands_pb2.ReplaceOrderRequest):
        return requests.replace(change, units, account, session, number)
    assert isinstance(change, order_commands_pb2.ReduceOrderRequest)
    return requests.reduce(change, units, account, session, number)


def _seconds(request: pb.OpenSession, name: str, least: float, most: float, default: float) -> float:
    if not request.HasField(name):  # type: ignore[arg-type]
        return default
    duration = getattr(request, name)
    seconds: float = duration.seconds + duration.nanos / 1e9
    if not least <= seconds <= most:
        raise requests.refuse(
            ErrorReason.INVALID_FIELD, name, f"{name} must lie between {least:g} and {most:g} seconds", f"{seconds:g}s"
        )
    return seconds

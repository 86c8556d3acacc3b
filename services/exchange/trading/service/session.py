"""OrderSession: batches of commands in, batches of results out, in order, over one connection after another.

The session itself is state of the core. Here is what belongs to connections: one at a time for a session, how many
commands are under way, the timers of lost connections and of the dead man.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from exchange.domain.symbols import is_client_id
from exchange.runtime.drain import Drain
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import Command
from exchange.trading.core.constants import SESSION_RESULT_WINDOW
from exchange.trading.core.events import R_COUNT, Result
from exchange.trading.core.model import Session
from exchange.trading.service import requests
from exchange.trading.service.desk import Desk
from exchange.trading.service.messages import set_time
from exchange.trading.service.order_lookup import units_of_order
from exchange.trading.service.results import command_result, refused_result
from exchange.trading.service.streaming import HEARTBEAT_S
from exchange.trading.service.units import MarketUnits
from pincex.trading.v1 import order_session_pb2 as pb
from pincex.trading.v1 import types_pb2

MAX_BATCH: Final = 1_000
MAX_OUTSTANDING: Final = 4_000
DEFAULT_GRACE_S: Final = 5.0
MAX_GRACE_S: Final = 60.0
MAX_DEAD_MAN_S: Final = 300.0
UNATTENDED_S: Final = 3_600.0
"""How long a session without cancel-on-disconnect is remembered after its connection was lost."""

END_RETRY_S: Final = 0.2
"""Between two attempts to end a session while the journal is away."""

TAKE_OVER_GRACE_S: Final = 10.0
"""Time to attach again that a new leader grants to every session, beyond the session's own grace."""

NOT_NOW: Final = frozenset({ErrorReason.OVERLOADED, ErrorReason.JOURNAL_UNAVAILABLE, ErrorReason.NOT_READY})

Slot = Command | ServiceError


@dataclass(slots=True)
class _Batch:
    """A batch under way; `slots` are its commands, or why one did not get so far, `parts` their submissions."""

    first_number: int
    slots: list[Slot]
    parts: list[asyncio.Future[list[Result]]]


@dataclass(slots=True)
class _Connection:
    """One connection of a session."""

    account: str
    session: str
    expected: int = 1
    outstanding: int = 0
    room: asyncio.Event = field(default_factory=asyncio.Event)
    outbox: asyncio.Queue[_Batch | pb.OrderSessionResponse | ServiceError | None] = field(
        default_factory=lambda: asyncio.Queue(MAX_OUTSTANDING)
    )
    closed_by_client: bool = False


class Sessions:
    """All sessions of an instance."""

    def __init__(self, desk: Desk, drain: Drain) -> None:
        self._desk = desk
        self._drain = drain
        self._connections: dict[tuple[str, str], _Connection] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("session")

    @property
    def open_count(self) -> int:
        """Sessions that are connected."""
        return len(self._connections)

    # --- a connection ---

    async def serve(
        self, incoming: AsyncIterator[pb.OrderSessionRequest], account: str
    ) -> AsyncIterator[pb.OrderSessionResponse]:
        """One connection from its first message to its last."""
        iterator = aiter(incoming)
        try:
            first = await anext(iterator)
        except StopAsyncIteration:
            raise ServiceError(ErrorReason.PROTOCOL_VIOLATION, "the first message must be `open`") from None
        if first.WhichOneof("message") != "open":
            raise ServiceError(ErrorReason.PROTOCOL_VIOLATION, "the first message must be `open`")
        connection, opened = await self._open(first.open, account)
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

    async def _open(self, request: pb.OpenSession, account: str) -> tuple[_Connection, pb.SessionOpened]:
        name = request.session_id
        if not is_client_id(name):
            raise requests.refuse(
                ErrorReason.INVALID_FIELD, "session_id", "session_id must be 1 to 64 printable ASCII characters", name
            )
        grace = _seconds(request, "grace", 0.0, MAX_GRACE_S, DEFAULT_GRACE_S)
        dead_man = _seconds(request, "dead_man_timeout", 1.0, MAX_DEAD_MAN_S, 0.0)
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
        connection = self._connections[key] = _Connection(account, name)
        self._cancel_timer(key)
        try:
            result = await self._desk.execute(command)
        except BaseException:
            self._disconnected(connection)
            raise
        connection.expected = result[R_COUNT] + 1
        self._arm_dead_man(connection)
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
                    pong = pb.SessionPong(nonce=request.ping.nonce, head_sequence=self._desk.leader.committed_sequence)
                    await outbox.put(pb.OrderSessionResponse(pong=pong))
                elif kind == "close":
                    connection.closed_by_client = True
                    await outbox.put(None)
                    return
                else:
                    raise ServiceError(
                        ErrorReason.PROTOCOL_VIOLATION, "`open` comes once, and a message is never empty"
                    )
                self._arm_dead_man(connection)
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
        taken = self._submit(batch, connection)
        connection.outstanding += count
        connection.expected = max(connection.expected, first + count)
        await connection.outbox.put(taken)

    def _submit(self, batch: pb.CommandBatch, connection: _Connection) -> _Batch:
        """Queue the commands of a batch. A change to an order that came just before it needs that order's market: what
        came before is submitted and applied first then.
        """
        desk = self._desk
        account, session = connection.account, connection.session
        number = batch.first_number
        taken = _Batch(number, [], [])
        slots = taken.slots
        pending: list[Command] = []
        scales: dict[str, MarketUnits] = {}
        for item in batch.commands:
            try:
                kind = item.WhichOneof("command")
                if kind == "place":
                    place = item.place
                    units = scales.get(place.symbol)
                    if units is None:
                        units = scales[place.symbol] = desk.market(place.symbol)[1]
                    command = requests.place(place, units, account, session, number)
                elif kind == "cancel":
                    command = requests.cancel(item.cancel, account, session, number)
                elif kind in {"replace", "reduce"}:
                    if pending:
                        taken.parts.append(desk.enqueue(pending))
                        pending = []
                    desk.leader.apply_now()
                    command = self._change(item, connection, number)
                elif kind == "cancel_all":
                    symbol = item.cancel_all.symbol
                    market = desk.market(symbol)[0].index if symbol else -1
                    command = requests.cancel_all(item.cancel_all, market, account, session, number)
                else:
                    raise ServiceError(ErrorReason.PROTOCOL_VIOLATION, "the command is empty or not known")
                pending.append(command)
                slots.append(command)
            except ServiceError as error:
                if error.reason in NOT_NOW:
                    # Not this command's fault: the connection ends, and a repeat with the same numbers is safe.
                    raise
                slots.append(error)
            number += 1
        if pending:
            taken.parts.append(desk.enqueue(pending))
        return taken

    def _change(self, item: pb.SessionCommand, connection: _Connection, number: int) -> Command:
        account, session = connection.account, connection.session
        if item.WhichOneof("command") == "replace":
            units = units_of_order(self._desk, account, item.replace)
            return requests.replace(item.replace, units, account, session, number)
        units = units_of_order(self._desk, account, item.reduce)
        return requests.reduce(item.reduce, units, account, session, number)

    async def _responses(self, connection: _Connection) -> AsyncIterator[pb.OrderSessionResponse]:
        while True:
            try:
                item = await asyncio.wait_for(connection.outbox.get(), HEARTBEAT_S)
            except TimeoutError:
                yield self._heartbeat()
                continue
            if item is None:
                return
            if isinstance(item, ServiceError):
                raise item
            if isinstance(item, _Batch):
                yield await self._results(item)
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
        for slot in batch.slots:
            if isinstance(slot, ServiceError):
                target.append(refused_result(slot))
            else:
                command_result(self._desk, next(results), slot, target.add())
        return response

    def _heartbeat(self) -> pb.OrderSessionResponse:
        response = pb.OrderSessionResponse()
        response.heartbeat.head_sequence = self._desk.leader.committed_sequence
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

    # --- timers ---

    def _disconnected(self, connection: _Connection) -> None:
        key = (connection.account, connection.session)
        if self._connections.get(key) is not connection:
            return
        del self._connections[key]
        self._cancel_timer(key)
        if self._drain.is_set() or self._desk.sequencer is None:
            return
        if connection.closed_by_client:
            self._spawn(key, cmd.close_session(*key))
            return
        session = self._session(key)
        if session is not None:
            self._start_grace(key, session, 0.0)

    def _session(self, key: tuple[str, str]) -> Session | None:
        holder = self._desk.account(key[0])
        return holder.sessions.get(key[1]) if holder is not None else None

    def _start_grace(self, key: tuple[str, str], session: Session, extra_s: float) -> None:
        seconds = session.grace_ms / 1000 if session.cancel_on_disconnect else UNATTENDED_S
        if session.dead_man_ms:
            seconds = min(seconds, session.dead_man_ms / 1000)
        self._set_timer(key, seconds + extra_s)

    def attend(self) -> None:
        """This instance leads now: every session gets its grace to attach again, and some more for the change."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for account in self._desk.state.accounts.values():
            for session in account.sessions.values():
                key = (account.name, session.name)
                if key not in self._connections:
                    self._start_grace(key, session, TAKE_OVER_GRACE_S)

    def _arm_dead_man(self, connection: _Connection) -> None:
        key = (connection.account, connection.session)
        session = self._session(key) if self._desk.sequencer is not None else None
        if session is not None and session.dead_man_ms and self._connections.get(key) is connection:
            self._set_timer(key, session.dead_man_ms / 1000)

    def _set_timer(self, key: tuple[str, str], seconds: float) -> None:
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._expire, key)

    def _cancel_timer(self, key: tuple[str, str]) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, key: tuple[str, str]) -> None:
        self._timers.pop(key, None)
        if self._drain.is_set() or self._desk.sequencer is None:
            return
        connection = self._connections.get(key)
        if connection is not None:
            self._end(connection, ServiceError(ErrorReason.SESSION_NOT_FOUND, "the dead-man timer ran out"))
        self._spawn(key, cmd.expire_session(*key))

    def _spawn(self, key: tuple[str, str], command: Command) -> None:
        task = asyncio.create_task(self._apply(key, self._connections.get(key), command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _apply(self, key: tuple[str, str], ended: _Connection | None, command: Command) -> None:
        """End a session; while the journal is away, again and again, unless its client attaches meanwhile."""
        while not self._drain.is_set() and self._desk.sequencer is not None:
            present = self._connections.get(key)
            if present is not None and present is not ended:
                return
            try:
                await self._desk.execute(command)
            except ServiceError as error:
                if error.reason == ErrorReason.SESSION_NOT_FOUND:
                    return
                self._log.warning("a session could not be ended yet", reason=error.reason_name)
                await asyncio.sleep(END_RETRY_S)
            else:
                return


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

"""Order sessions that outlive their connections.

    async with exchange.session() as session:
        result = await session.place("BTCUSD", "BUY", "1", "50000")     # one at a time, or
        future = await session.send(requests.place_order(...))          # pipelined: one future a command, in order

Commands are numbered, gathered into batches while the loop is busy, and kept until their result is there. When the
connection goes (a restart, a new leader, a drain notice, silence), the session attaches again by its id and sends what
has no result yet with the same numbers: the exchange applies each number once. When the session itself is gone
(expired), a new one is opened and the commands go again by their client ids.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pincex.trading.v1 import order_session_pb2 as wire
from pincex_client import requests
from pincex_client.errors import ExchangeError, OutcomeUnknown, SessionClosed
from pincex_client.results import CommandResult
from pincex_client.session_link import CommandRequest, Link, Lost, carries_id, command_of, gives_up
from pincex_client.transport import Identity, Metadata, RetryPolicy, new_id

if TYPE_CHECKING:
    from pincex.trading.v1.order_service_pb2_grpc import OrderServiceAsyncStub

ResultFuture = asyncio.Future[CommandResult]


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session behaves. Seconds throughout.

    `batch_size` and `window` are upper bounds: the server's own, told when the session opens, apply too. `window` is
    how many commands may be without a result; `send` waits beyond it. `reconnect_deadline` is how long the session
    tries without any progress before its commands fail.
    """

    batch_size: int = 1_000
    window: int = 10_000
    cancel_on_disconnect: bool = False
    grace: float | None = None
    dead_man_timeout: float | None = None
    reconnect_deadline: float = 60.0
    ping_interval: float = 5.0
    stale_after: float = 15.0
    drain_patience: float = 2.0
    policy: RetryPolicy = field(default_factory=RetryPolicy)

    @property
    def idle_ping(self) -> float:
        """After how long without a batch a ping goes out: a third of the dead-man timer, if there is one."""
        if self.dead_man_timeout is None:
            return self.ping_interval
        return min(self.ping_interval, self.dead_man_timeout / 3)


class Pending:
    """A command without a result."""

    __slots__ = ("command", "future", "number", "written")

    def __init__(self, number: int, command: wire.SessionCommand, future: ResultFuture) -> None:
        self.number = number
        self.command = command
        self.future = future
        self.written = False


class OrderSession:
    """One order session. Build it with `ExchangeClient.session`, enter it, send.

    Counters: `reconnects`, `sessions_lost`, `resent` (commands written more than once), `batches`.
    """

    def __init__(
        self, stub: "OrderServiceAsyncStub", identity: Identity, session_id: str, options: SessionOptions
    ) -> None:
        self.session_id = session_id or new_id("s")
        self.options = options
        self.window = options.window
        self.batch_size = options.batch_size
        self.reconnects = 0
        self.sessions_lost = 0
        self.resent = 0
        self.batches = 0
        self._stub = stub
        self._identity = identity
        self._used: Metadata = ()
        # Whether the headers were renewed since the session was open last.
        self._renewed = False
        self._next_number = 0
        self._sent: deque[Pending] = deque()
        self._unsent: deque[Pending] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._wakeup = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._closing = False
        self._failure: ExchangeError | None = None
        self._progress_time = 0.0
        self._backoff = options.policy.backoff()

    # --- Life -------------------------------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Open or attach to the session; raises what the exchange says against it."""
        loop = asyncio.get_running_loop()
        self._opened = loop.create_future()
        self._progress_time = loop.time()
        self._runner = asyncio.create_task(self._run(), name=f"order session {self.session_id}")
        try:
            await self._opened
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aenter__(self) -> Self:
        """Open the session."""
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the results still due and end the session; after an error only let go of it."""
        if error is None:
            await self.close()
        else:
            await self.detach()

    async def close(self) -> None:
        """Wait until each command has its result, then end the session for good."""
        self._closing = True
        self._wakeup.set()
        if self._runner is not None:
            await asyncio.wait([self._runner])
        self._fail(SessionClosed("the session was closed", reason="SESSION_NOT_FOUND"))

    async def detach(self) -> None:
        """Drop the connection and leave the session to be attached to again, by its id, until it expires."""
        await self._stop()
        self._fail(SessionClosed("detached from the session", reason="SESSION_NOT_FOUND"))

    async def _stop(self) -> None:
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])

    # --- Commands ---------------------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """Commands without a result."""
        return len(self._sent) + len(self._unsent)

    @property
    def last_number(self) -> int:
        """Number of the newest command."""
        return self._next_number - 1

    def submit(self, request: CommandRequest) -> ResultFuture:
        """Queue a command without waiting; the future gets its `CommandResult`, in order.

        Raises `asyncio.QueueFull` when `window` commands are without a result (`send` waits instead), and the reason
        once the session has failed. Cancelling the future does not cancel the command.
        """
        if self._failure is not None:
            raise self._failure
        if self._closing or self._runner is None:
            raise SessionClosed("the session is not open", reason="SESSION_NOT_FOUND")
        if self.outstanding >= self.window:
            raise asyncio.QueueFull
        loop = asyncio.get_running_loop()
        if not self.outstanding:
            self._progress_time = loop.time()
        future: ResultFuture = loop.create_future()
        self._unsent.append(Pending(self._next_number, command_of(request), future))
        self._next_number += 1
        self._wakeup.set()
        return future

    async def send(self, request: CommandRequest) -> ResultFuture:
        """Queue a command, waiting for room in the window first; await the returned future for its result."""
        while self.outstanding >= self.window and self._failure is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return self.submit(request)

    async def place(
        self, symbol: str, side: str, quantity: requests.Amount, *args: Any, **options: Any
    ) -> CommandResult:
        """Place an order and wait for its result; arguments as `requests.place_order`."""
        return await (await self.send(requests.place_order(symbol, side, quantity, *args, **options)))

    async def cancel(self, order_id: str = "", **options: Any) -> CommandResult:
        """Cancel an order and wait for the result; arguments as `requests.cancel_order`."""
        return await (await self.send(requests.cancel_order(order_id, **options)))

    async def replace(self, order_id: str = "", **options: Any) -> CommandResult:
        """Replace an order and wait for the result; arguments as `requests.replace_order`."""
        return await (await self.send(requests.replace_order(order_id, **options)))

    async def reduce(self, order_id: str = "", **options: Any) -> CommandResult:
        """Reduce an order and wait for the result; arguments as `requests.reduce_order`."""
        return await (await self.send(requests.reduce_order(order_id, **options)))

    async def cancel_all(self, symbol: str = "", **options: Any) -> CommandResult:
        """Cancel all open orders, or those of one symbol, and wait for the result."""
        return await (await self.send(requests.cancel_all_orders(symbol, **options)))

    # --- Connections ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Connect, and again, until closed or given up."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    if await self._connected():
                        return
                    continue
                except Lost as lost:
                    error = lost.error
                if self._closing and not self.outstanding:
                    return
                if error.reason in {"SESSION_NOT_FOUND", "COMMAND_NUMBER_OUT_OF_WINDOW"}:
                    self.session_id = new_id("s")
                if not self._renewed and self._identity.outdated(error, self._used):
                    self._renewed = True
                    continue
                if gives_up(error) or loop.time() - self._progress_time > self.options.reconnect_deadline:
                    self._fail(error)
                    return
                await asyncio.sleep(self._backoff.next_delay(error.retry_after))
        except Exception as defect:
            # A defect of this class must not leave futures that never end.
            self._fail(SessionClosed(f"the session broke: {defect!r}", reason="INTERNAL"))
            raise

    async def _connected(self) -> bool:
        """One connection. True: the session was closed as asked. False: drained, connect again at once.

        Raises Lost with the reason for anything else.
        """
        self._used = ()
        try:
            self._used = await self._identity.metadata()
        except ExchangeError as error:
            raise Lost(error) from None
        link = Link(self._stub, self._used, self.options)
        try:
            self._adopt(await link.open(self.session_id))
            self._renewed = False
            writer = asyncio.create_task(self._write(link))
            writer.add_done_callback(self._writer_ended)
            try:
                return await self._read(link)
            finally:
                writer.cancel()
                await asyncio.wait([writer])
        finally:
            link.drop()

    def _adopt(self, opened: wire.SessionOpened) -> None:
        """Take over what the exchange knows of this session: limits, and where its numbers stand."""
        bounds = [bound for bound in (opened.max_outstanding, opened.result_window) if bound]
        self.window = min(self.options.window, *bounds) if bounds else self.options.window
        self.batch_size = min(self.options.batch_size, opened.max_batch_size or self.options.batch_size)
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        oldest = self._unsent[0].number if self._unsent else self._next_number
        first_time = self._opened is not None and not self._opened.done()
        if first_time:
            self._renumber(opened.last_number + 1)
        elif not opened.resumed:
            self.sessions_lost += 1
            self._drop_nameless()
            self._renumber(opened.last_number + 1)
        elif opened.last_number + 1 < oldest:
            # Numbers that were used up by malformed commands are not journaled, and nothing of ours came after them.
            self._renumber(opened.last_number + 1)
        elif opened.last_number >= self._next_number:
            raise Lost(SessionClosed("another client numbers this session", reason="SESSION_TAKEN_OVER"))
        if first_time and self._opened is not None:
            self._opened.set_result(None)
        elif not first_time:
            self.reconnects += 1
        if not self.outstanding:
            self._progressed()
        self._wake_waiters()
        self._wakeup.set()

    def _drop_nameless(self) -> None:
        """The session is lost: of what was written, only commands with an id may be written again."""
        kept: deque[Pending] = deque()
        for pending in self._unsent:
            if not pending.written or carries_id(pending.command):
                kept.append(pending)
            elif not pending.future.done():
                pending.future.set_exception(OutcomeUnknown("the session was lost", reason="SESSION_NOT_FOUND"))
        self._unsent = kept

    def _renumber(self, first: int) -> None:
        """Begin the numbers of what is unanswered at `first`."""
        self._next_number = first
        for pending in self._unsent:
            pending.number = self._next_number
            self._next_number += 1

    async def _write(self, link: Link) -> None:
        """Send batches while there are commands, pings while there are none; ends with the connection."""
        while not link.draining:
            if self._unsent:
                if not await link.send(wire.OrderSessionRequest(batch=self._next_batch())):
                    return
                continue
            if self._closing and not self._sent:
                await link.finish()
                return
            self._wakeup.clear()
            try:
                async with asyncio.timeout(self.options.idle_ping):
                    await self._wakeup.wait()
            except TimeoutError:
                if not await link.ping():
                    return

    def _next_batch(self) -> wire.CommandBatch:
        """Move the oldest unsent commands, up to a batch of them, to the sent ones."""
        batch = wire.CommandBatch(first_number=self._unsent[0].number)
        add = batch.commands.append
        for _ in range(min(len(self._unsent), self.batch_size)):
            pending = self._unsent.popleft()
            self.resent += pending.written
            pending.written = True
            add(pending.command)
            self._sent.append(pending)
        self.batches += 1
        return batch

    async def _read(self, link: Link) -> bool:
        """Take in what the server says, until the connection ends; see `_connected`."""
        while True:
            if link.draining and not self._sent:
                return False
            response = await link.read()
            if response is None:
                if self._closing and not self.outstanding:
                    return True
                if link.draining:
                    return False
                raise Lost(ExchangeError("the server ended the stream", reason="UPSTREAM_UNAVAILABLE"))
            if response.WhichOneof("message") == "results":
                self._resolve(response.results)

    def _resolve(self, batch: wire.ResultBatch) -> None:
        """Give each command of the batch its result."""
        number = batch.first_number
        if self._sent and number > self._sent[0].number:
            raise Lost(ExchangeError("the server left out results", reason="UPSTREAM_UNAVAILABLE"))
        try:
            for message in batch.results:
                if not self._sent:
                    break
                if number == self._sent[0].number:
                    self._settle(CommandResult(message), refused=message.reason != 0)
                number += 1
        finally:
            self._wake_waiters()
            if self._closing:
                self._wakeup.set()

    def _settle(self, result: CommandResult, *, refused: bool) -> None:
        if refused:
            Lost.raise_for(result)
        pending = self._sent.popleft()
        if not pending.future.done():
            pending.future.set_result(result)
        self._progressed()

    def _writer_ended(self, writer: asyncio.Task[None]) -> None:
        """A defect in the writer ends the session at once: the reader would wait for ever."""
        defect = None if writer.cancelled() else writer.exception()
        if defect is not None:
            self._fail(SessionClosed(f"the session broke: {defect!r}", reason="INTERNAL"))
            if self._runner is not None:
                self._runner.cancel()

    def _progressed(self) -> None:
        self._progress_time = asyncio.get_running_loop().time()
        self._backoff.reset()

    def _wake_waiters(self) -> None:
        room = self.window - self.outstanding
        while self._waiters and room > 0:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    def _fail(self, error: ExchangeError) -> None:
        """End every command that has no result, and all that come later, with `error`."""
        if self._failure is None:
            self._failure = error
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)
        for pending in (*self._sent, *self._unsent):
            if not pending.future.done():
                pending.future.set_exception(error)
        self._sent.clear()
        self._unsent.clear()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

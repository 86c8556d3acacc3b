"""The whole trading engine inside the test's own event loop, and clients that speak gRPC to it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from exchange.runtime import process
from exchange.runtime.config import Environment
from exchange.runtime.gc_schedule import GcSchedule
from exchange.trading.__main__ import App
from exchange.trading.config import Config
from exchange.trading.core.engine import Engine
from exchange.trading.journal.memory import MemoryJournal, MemoryLease, MemoryStore
from exchange.trading.sequencer import Sequencer
from pincex.journal.v1 import event_service_pb2_grpc
from pincex.trading.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    admin_service_pb2,
    admin_service_pb2_grpc,
    health_service_pb2_grpc,
    market_service_pb2_grpc,
    order_commands_pb2,
    order_service_pb2,
    order_service_pb2_grpc,
    types_pb2,
)

DEADLINE_S = 10.0
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs leave it out
BUY, SELL = types_pb2.BUY, types_pb2.SELL
LIMIT, MARKET, STOP, STOP_LIMIT = types_pb2.LIMIT, types_pb2.MARKET, types_pb2.STOP, types_pb2.STOP_LIMIT
GTC, IOC, FOK, GTD = types_pb2.GTC, types_pb2.IOC, types_pb2.FOK, types_pb2.GTD


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status error as a client reads it."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]
    details: tuple[str, ...]


def refusal_of(error: grpc.RpcError) -> Refusal:
    """What an error says, in its details."""
    assert isinstance(error, grpc.aio.AioRpcError)
    trailing: Any = error.trailing_metadata()
    raw = dict(trailing or ()).get("grpc-status-details-bin")
    assert raw is not None, f"no details: {error}"
    status = status_pb2.Status.FromString(raw)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "pincex"
    kinds = tuple(detail.type_url.rpartition(".")[2] for detail in status.details[1:])
    return Refusal(error.code().name, info.reason, error.details() or "", dict(info.metadata), kinds)


async def refused(call: Awaitable[Any]) -> Refusal:
    """The error that a call must end with."""
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return refusal_of(caught.value)


async def eventually(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Return once the condition holds; fail naming `what` did not happen."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_s
    while not condition():
        if loop.time() > deadline:
            pytest.fail(f"not within {deadline_s:g} s: {what}")
        await asyncio.sleep(0.002)


class Stream:
    """One open stream of answers."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def next(self) -> Any:
        """The next message; fails if none comes or the stream ends."""
        message = await asyncio.wait_for(self.call.read(), DEADLINE_S)
        assert message is not _EOF, "the stream ended"
        return message

    async def take(self, count: int) -> list[Any]:
        """The next messages."""
        return [await self.next() for _ in range(count)]

    async def until(self, found: Callable[[Any], bool]) -> list[Any]:
        """All messages up to the first that is the one looked for, itself included."""
        messages = [await self.next()]
        while not found(messages[-1]):
            messages.append(await self.next())
        return messages

    async def rest(self) -> list[Any]:
        """All messages up to the end of the stream."""
        messages = []
        while (message := await asyncio.wait_for(self.call.read(), DEADLINE_S)) is not _EOF:
            messages.append(message)
        return messages

    async def send(self, message: Any) -> None:
        """For streams of both directions."""
        await asyncio.wait_for(self.call.write(message), DEADLINE_S)

    async def cancel(self) -> None:
        """Leave."""
        self.call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.call.code() and await self.call.read()


@dataclass(slots=True)
class Client:
    """One account, with the stubs of every service; shorthands for what tests do all the time."""

    channel: grpc.aio.Channel
    account: str
    orders: Any = field(init=False)
    accounts: Any = field(init=False)
    markets: Any = field(init=False)
    health: Any = field(init=False)
    admin: Any = field(init=False)
    events: Any = field(init=False)

    def __post_init__(self) -> None:
        channel: Any = self.channel
        self.orders = order_service_pb2_grpc.OrderServiceStub(channel)
        self.accounts = account_service_pb2_grpc.AccountServiceStub(channel)
        self.markets = market_service_pb2_grpc.MarketServiceStub(channel)
        self.health = health_service_pb2_grpc.HealthServiceStub(channel)
        self.admin = admin_service_pb2_grpc.TradingAdminServiceStub(channel)
        self.events = event_service_pb2_grpc.EventServiceStub(channel)

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-pincex-account", self.account),)

    async def ask(self, method: Any, request: Any) -> Any:
        """A unary call."""
        return await method(request, metadata=self._metadata, timeout=DEADLINE_S)

    def stream(self, method: Any, request: Any = None) -> Stream:
        """A stream of answers; without a request, of requests too."""
        if request is None:
            return Stream(method(metadata=self._metadata))
        return Stream(method(request, metadata=self._metadata))

    async def place(self, side: int, quantity: str, price: str = "", **more: Any) -> types_pb2.Order:
        """PlaceOrder: LIMIT on BTCUSD unless `more` says otherwise."""
        order: types_pb2.Order = await self.ask(self.orders.PlaceOrder, placing(side, quantity, price, **more))
        return order

    async def buy(self, quantity: str, price: str = "", **more: Any) -> types_pb2.Order:
        """Place a buy."""
        return await self.place(BUY, quantity, price, **more)

    async def sell(self, quantity: str, price: str = "", **more: Any) -> types_pb2.Order:
        """Place a sell."""
        return await self.place(SELL, quantity, price, **more)

    async def cancel(self, order_id: str, **more: Any) -> types_pb2.Order:
        """CancelOrder."""
        request = order_commands_pb2.CancelOrderRequest(order_id=order_id, **more)
        order: types_pb2.Order = await self.ask(self.orders.CancelOrder, request)
        return order

    async def get(self, order_id: str, **more: Any) -> types_pb2.Order:
        """GetOrder."""
        request = order_service_pb2.GetOrderRequest(order_id=order_id, **more)
        order: types_pb2.Order = await self.ask(self.orders.GetOrder, request)
        return order

    async def listed(self, **filters: Any) -> list[types_pb2.Order]:
        """The orders of one page."""
        response = await self.ask(self.orders.ListOrders, order_service_pb2.ListOrdersRequest(**filters))
        return list(response.orders)

    async def balances(self) -> dict[str, tuple[str, str]]:
        """(available, held) by asset."""
        response = await self.ask(self.accounts.ListBalances, account_service_pb2.ListBalancesRequest())
        return {balance.asset: (balance.available, balance.held) for balance in response.balances}


def placing(side: int, quantity: str, price: str = "", **more: Any) -> order_commands_pb2.PlaceOrderRequest:
    """A PlaceOrderRequest: LIMIT on BTCUSD unless `more` says otherwise."""
    fields = {"symbol": "BTCUSD", "order_type": LIMIT, "side": side, "quantity": quantity, "price": price, **more}
    return order_commands_pb2.PlaceOrderRequest(**fields)


@dataclass(slots=True)
class Exchange:
    """A running engine with its listeners."""

    app: App
    store: MemoryStore
    public: grpc.aio.Channel
    ops: grpc.aio.Channel
    running: asyncio.Task[None]
    stopped: asyncio.Event
    demo: Client = field(init=False)
    maker: Client = field(init=False)
    operator: Client = field(init=False)

    def __post_init__(self) -> None:
        self.demo = self.client("demo")
        self.maker = self.client("maker")
        self.operator = Client(self.ops, "ops-local")

    def client(self, account: str) -> Client:
        """Another account."""
        return Client(self.public, account)

    @property
    def engine(self) -> Engine:
        """The core that leads."""
        return self.app.desk.engine

    @property
    def sequencer(self) -> Sequencer:
        """Of the core that leads."""
        sequencer = self.app.desk.sequencer
        assert sequencer is not None, "it leads"
        return sequencer

    async def state_hash(self) -> str:
        """Over the admin contract."""
        state = await self.operator.ask(self.operator.admin.GetEngineState, admin_service_pb2.GetEngineStateRequest())
        return f"{state.sequence} {state.state_hash}"

    async def credit(self, account: str, asset: str, amount: str, request_id: str = "") -> types_pb2.Balance:
        """Fund an account."""
        request = account_service_pb2.CreditAccountRequest(
            account=account, asset=asset, amount=amount, request_id=request_id or f"fund-{account}-{asset}-{amount}"
        )
        balance: types_pb2.Balance = await self.operator.ask(self.operator.accounts.CreditAccount, request)
        return balance

    async def lead_again(self) -> None:
        """Give the core up, and wait until one recovered from the journal has taken its place."""
        before = self.sequencer
        before.stop()
        await eventually(lambda: self.app.desk.sequencer not in (None, before), "it leads again")

    async def stop(self) -> None:
        """As a SIGTERM would."""
        self.stopped.set()
        await asyncio.wait_for(asyncio.shield(self.running), DEADLINE_S)


def hold_appends(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """No journal in memory answers any more until the event is set."""
    release = asyncio.Event()
    append = MemoryJournal.append

    async def held(journal: MemoryJournal, frame: Any) -> None:
        await release.wait()
        await append(journal, frame)

    monkeypatch.setattr(MemoryJournal, "append", held)
    return release


ENVIRONMENT = {
    "PINCEX_MEMORY": "1",
    "PINCEX_PROFILE": "development",
    "PINCEX_INSTANCE": "engine-under-test",
    "PINCEX_DRAIN_SECONDS": "1",
    "JWT_SECRET": "shared by all instances under test",
}


@asynccontextmanager
async def running_exchange(
    monkeypatch: pytest.MonkeyPatch,
    *,
    store: MemoryStore | None = None,
    prepare: Callable[[App], None] | None = None,
    **variables: str,
) -> AsyncIterator[Exchange]:
    """An engine on a store, until the end of the block. `prepare` may change the App before it runs."""
    stopped = asyncio.Event()
    # No signal handlers in a test's process: the event itself stops the App.
    monkeypatch.setattr(process, "stop_signal", lambda: stopped)
    # A full collection at each start would take longer than the tests; the schedule has tests of its own.
    monkeypatch.setattr(GcSchedule, "start", lambda _schedule: None)
    store = store if store is not None else MemoryStore()
    logs = tempfile.mkdtemp(prefix="pincex-test-logs-")
    environment = Environment({**ENVIRONMENT, "PINCEX_LOG_DIR": logs, **variables})
    app = App(Config.read(environment), MemoryJournal(store), MemoryLease(store))
    if prepare is not None:
        prepare(app)
    running = asyncio.create_task(app.run())
    try:
        await eventually(lambda: running.done() or app.public.port != 0, "the engine listens")
        await eventually(lambda: running.done() or app._ready().ready, "the engine serves")
        await eventually(lambda: running.done() or bool(app.desk.state.accounts.get("maker")), "it is funded")
        if running.done():
            await running
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{app.public.port}") as public,
            grpc.aio.insecure_channel(f"127.0.0.1:{app.ops.port}") as ops,
        ):
            yield Exchange(app, store, public, ops, running, stopped)
    finally:
        stopped.set()
        try:
            await asyncio.wait_for(running, DEADLINE_S)
        finally:
            shutil.rmtree(logs)


@asynccontextmanager
async def behind_a_follower(monkeypatch: pytest.MonkeyPatch, leader: Exchange) -> AsyncIterator[Exchange]:
    """The leader's exchange as clients of a follower see it: the same core, other listeners."""
    async with running_exchange(monkeypatch, store=leader.store, PINCEX_INSTANCE="follower") as follower:
        assert follower.app.desk.sequencer is None
        yield Exchange(leader.app, leader.store, follower.public, follower.ops, leader.running, leader.stopped)

"""Market data of the whole running exchange, whatever dies: clients that verify never hold a wrong book without knowing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
import uuid
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from pincex.marketdata.v1 import market_data_service_pb2 as data_pb
from pincex.marketdata.v1 import market_data_service_pb2_grpc
from pincex.trading.v1 import account_service_pb2, admin_service_pb2, market_service_pb2_grpc, types_pb2
from pincex.trading.v1 import market_service_pb2 as pb
from tests.e2e.verifying_client import CutNetwork, VerifyingClient, until
from tests.edge_http import call
from tests.integration.trading.engine_app import BUY, SELL, Client
from tests.long.report import SOAK, VERIFIED, spread, write_section

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.stack_fixture import ExchangeStack

STREAMS = ("levels 0 0", "levels 10 100", "orders", "trades", "best")
SERVICE = "market-data-1"
ROUNDS = int(os.environ.get("ROUNDS") or 10)
SOAK_S = float(os.environ.get("SOAK_S") or 15 * 60)
VERIFIED_TEXT = """
One exchange of all services, Envoy in front, and five clients of market data that verify each message: levels, ten levels
conflated to 100 ms, single orders, trades, best prices. Each round kills market data, the engine and Envoy by SIGKILL, cuts the network
for half a second and stops reading for a second, under a load of orders. What held:

- each book was right, by its checksum, at every message; none was discarded, and each stream went on by its resume token;
- after each fault an order placed then was in the levels and in the single orders: the time above is to that moment;
- the books held just after faults were the engine's of that very sequence, and at the end all were the engine's;
- every trade was seen once, in order.
"""
SOAK_TEXT = """
Verifying clients of all kinds of streams through Envoy, with a load of orders. No stream was dropped, none had a wrong or missing
message, none was silent for ten seconds, and market data's memory did not grow.
"""


class Trading:
    """A market of its own on the running exchange, in which somebody trades."""

    def __init__(self, stack: ExchangeStack, edge: grpc.aio.Channel, ops: grpc.aio.Channel) -> None:
        self.stack = stack
        self.account = f"feeds-{uuid.uuid4().hex[:8]}"
        self.symbol = ""
        self.client = Client(edge, self.account)
        self.operator = Client(ops, "ops-local")
        self.sequence = 0
        self.orders = 0
        self._chance = random.Random(7)
        ops_channel: Any = ops
        edge_channel: Any = edge
        self.engine: Any = market_service_pb2_grpc.MarketServiceStub(ops_channel)
        self.markets: Any = market_service_pb2_grpc.MarketServiceStub(edge_channel)
        self.admin: Any = market_data_service_pb2_grpc.MarketDataAdminServiceStub(ops_channel)

    async def open(self) -> None:
        """Make the market, and fund the account."""
        asset = f"F{uuid.uuid4().hex[:6].upper()}"
        operator = self.operator
        await operator.ask(operator.admin.CreateAsset, admin_service_pb2.CreateAssetRequest(code=asset, decimals=1))
        market = await operator.ask(
            operator.admin.CreateMarket,
            admin_service_pb2.CreateMarketRequest(
                base_asset=asset, quote_asset="USD", tick_size="0.25", lot_size="0.1"
            ),
        )
        self.symbol = market.symbol
        for code in (asset, "USD"):
            request = account_service_pb2.CreditAccountRequest(
                account=self.account, asset=code, amount="1000000", request_id=f"{self.account}-{code}"
            )
            await operator.ask(operator.accounts.CreditAccount, request)

    async def place(self, side: int, quantity: str, price: str) -> types_pb2.Order:
        """An order, asked for until somebody answers: its id makes it one."""
        client_order_id = uuid.uuid4().hex
        ends = time.monotonic() + 60
        while True:
            try:
                order = await self.client.place(
                    side,
                    quantity,
                    price,
                    symbol=self.symbol,
                    client_order_id=client_order_id,
                    self_trade_prevention=types_pb2.NONE,
                )
            except grpc.aio.AioRpcError:
                assert time.monotonic() < ends, "the exchange takes no orders"
                await asyncio.sleep(0.1)
            else:
                self.sequence = max(self.sequence, order.sequence)
                self.orders += 1
                return order

    async def trade(self, pause_s: float) -> None:
        """Random orders until cancelled."""
        chance = self._chance
        while True:
            price = f"{100 + chance.randint(-20, 20) * 0.25:.2f}"
            await self.place(chance.choice((BUY, SELL)), f"{chance.randint(1, 50) / 10:.1f}", price)
            await asyncio.sleep(pause_s)

    async def true_book(self, sequence: int = 0) -> pb.OrderBook:
        """What an engine says that the book is, or was."""
        request = pb.GetOrderBookRequest(symbol=self.symbol, depth=5000, as_of_sequence=sequence)
        book: pb.OrderBook = await self.engine.GetOrderBook(request, timeout=60)
        return book


@pytest.fixture
async def trading(exchange_stack: ExchangeStack) -> AsyncIterator[Trading]:
    """A market of this test's own."""
    async with (
        grpc.aio.insecure_channel(exchange_stack.edge_address) as edge,
        grpc.aio.insecure_channel(exchange_stack.ops_address) as ops,
    ):
        made = Trading(exchange_stack, edge, ops)
        await made.open()
        yield made


async def restarted(stack: ExchangeStack, name: str) -> None:
    """Kill an instance, and wait until another process has taken its place."""
    await asyncio.to_thread(stack.restart, name)


def rest_book(stack: ExchangeStack, symbol: str, min_sequence: int) -> dict[str, Any]:
    answer = call(f"{stack.edge_url}/api/v1/orderbook/{symbol}?min_sequence={min_sequence}")
    assert answer.status == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_while_market_data_is_down_the_engines_answer_and_streams_go_on(trading: Trading) -> None:
    stack = trading.stack
    await trading.place(BUY, "1.0", "99.00")
    client = VerifyingClient(stack.edge_address, "levels 0 0", trading.symbol)
    trades = VerifyingClient(stack.edge_address, "trades", trading.symbol)
    tasks = [asyncio.create_task(one.run()) for one in (client, trades)]
    try:
        await until(lambda: client.copy.sequence >= trading.sequence and trades.connections == 1, "it follows")
        status = await trading.admin.GetMarketDataStatus(data_pb.GetMarketDataStatusRequest(), timeout=10)
        assert status.subscribers["book"] >= 1, "market data serves it"
        stack.kill(SERVICE)
        # At once, by whoever is there.
        for step in range(20):
            order = await trading.place(BUY if step % 2 else SELL, "0.5", "99.00")
            answer = await asyncio.to_thread(rest_book, stack, trading.symbol, order.sequence)
            assert int(answer["sequence"]) >= order.sequence
        await until(lambda: client.copy.sequence >= trading.sequence, "the stream has gone on")
        await until(lambda: stack.instance(SERVICE)["state"] == "ready", "market data runs again")
        last = await trading.place(BUY, "0.7", "98.00")
        await until(lambda: client.copy.sequence >= last.sequence, "it still follows")

        book = await trading.true_book()
        assert client.copy.checksum() == book.checksum
        assert client.discarded == trades.discarded == []
        ids = trades.copy.ids
        assert len(ids) == len(set(ids)) == 10
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def reaches(client: VerifyingClient, sequence: int, what: str) -> None:
    await until(lambda: bool(client.copy.sequence >= sequence), f"{client.what}: {what}")


async def survive(trading: Trading, rounds: int, pause_s: float) -> dict[str, float]:
    """Verifying clients of every kind through every fault; answers after how many seconds each was right again."""
    stack = trading.stack
    network = CutNetwork(stack.edge_address)
    address = await network.start()
    clients = [VerifyingClient(address, what, trading.symbol) for what in STREAMS]
    tasks = [asyncio.create_task(one.run()) for one in clients]
    load = asyncio.create_task(trading.trade(pause_s))

    async def paused() -> None:
        for one in clients:
            one.reading.clear()
        await asyncio.sleep(1.0)
        for one in clients:
            one.reading.set()

    def leader() -> str:
        found = [one["name"] for one in stack.status()["services"] if one.get("role") == "leader"]
        return str(found[0]) if found else "trading-engine-1"

    faults: dict[str, Any] = {
        "market data killed": lambda: restarted(stack, SERVICE),
        "engine killed": lambda: restarted(stack, leader()),
        "Envoy killed": lambda: restarted(stack, "envoy"),
        "network cut": lambda: network.cut(0.5),
        "consumer paused": paused,
    }
    right_again: dict[str, float] = {}
    looked_at: set[int] = set()
    try:
        await until(lambda: all(one.copy.sequence for one in clients), "all follow")
        for number in range(rounds):
            for name, fault in faults.items():
                await fault()
                begun, mark = time.monotonic(), (await trading.place(BUY, "0.1", "94.00")).sequence
                for one in clients[:3]:
                    await reaches(one, mark, f"right again after {name}")
                right_again[f"{name} {number}"] = time.monotonic() - begun
                looked_at |= {max(one.checksums) for one in clients[:3]}
        load.cancel()
        await asyncio.wait([load])
        last = await trading.place(BUY, "0.2", "200.00")
        for one in clients:
            await reaches(one, last.sequence, "has the last order")
        await compare(trading, clients, looked_at)
    finally:
        for task in (*tasks, load):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, load, return_exceptions=True)
        await network.stop()
    return right_again


async def compare(trading: Trading, clients: list[VerifyingClient], looked_at: set[int]) -> None:
    """What the clients hold is the engine's, what they held was, and nobody had to throw anything away."""
    book = await trading.true_book()
    levels, top, orders, trades, _ = clients
    told = [(level.price, level.quantity, level.order_count) for level in book.bids]
    assert levels.copy.best()[0] == told
    assert top.copy.best()[0] == told[:10]
    assert {levels.copy.checksum(), top.copy.checksum(), orders.copy.checksum()} == {book.checksum}
    assert [one.discarded for one in clients] == [[]] * len(clients)
    page = await trading.engine.ListMarketTrades(
        pb.ListMarketTradesRequest(symbol=trading.symbol, page_size=1000), timeout=10
    )
    ids = [trade.trade_id for trade in reversed(page.trades)]
    seen = trades.copy.ids
    assert seen == ids[-len(seen) :] or seen[-len(ids) :] == ids, "each trade once, in order"
    # After each fault, the book of that very moment.
    for sequence in sorted(looked_at)[:: max(1, len(looked_at) // 4)]:
        was = await trading.true_book(sequence)
        held = {one.checksums[sequence] for one in (levels, top, orders) if sequence in one.checksums}
        assert held == {was.checksum}, sequence


async def test_a_verifying_client_holds_no_wrong_book_whatever_dies(trading: Trading) -> None:
    right_again = await survive(trading, rounds=1, pause_s=0.03)

    assert len(right_again) == 5


@pytest.mark.long
async def test_a_verifying_client_holds_no_wrong_book_through_many_faults(trading: Trading, repository: Path) -> None:
    begun = time.monotonic()
    right_again = await survive(trading, rounds=ROUNDS, pause_s=0.005)

    by_fault: dict[str, list[float]] = {}
    for name, seconds in right_again.items():
        by_fault.setdefault(name.rsplit(" ", 1)[0], []).append(seconds)
    facts = {
        "duration": f"{time.monotonic() - begun:.0f} s",
        "orders": trading.orders,
        **{f"{name}, {ROUNDS} times: right again after, s": spread(found) for name, found in by_fault.items()},
    }
    write_section(repository, VERIFIED, facts, VERIFIED_TEXT)


@pytest.mark.long
async def test_a_soak_through_the_edge_drops_nothing_and_grows_nothing(trading: Trading, repository: Path) -> None:
    stack = trading.stack
    clients = [VerifyingClient(stack.edge_address, what, trading.symbol) for what in STREAMS * 8]
    tasks = [asyncio.create_task(one.run()) for one in clients]
    load = asyncio.create_task(trading.trade(0.02))
    pid = stack.instance(SERVICE)["pid"]
    begun, memory = time.monotonic(), []
    try:
        # Long enough for rings, caches and heartbeats to be full.
        await asyncio.sleep(120)
        while time.monotonic() - begun < SOAK_S:
            memory.append(resident_mib(pid))
            await asyncio.sleep(20)
        load.cancel()
        await asyncio.sleep(12)
    finally:
        for task in (*tasks, load):
            task.cancel()
        await asyncio.gather(*tasks, load, return_exceptions=True)
    assert {one.connections for one in clients} == {1}
    assert not any(one.discarded or one.ends for one in clients)
    assert all(one.heartbeats > 100 and one.longest_silence_s < 10 for one in clients)
    middle = len(memory) // 2
    early, late = (sorted(part)[len(part) // 2] for part in (memory[:middle], memory[middle:]))
    assert late < early * 1.1 + 5
    facts = {
        "duration": f"{SOAK_S / 60:.0f} min",
        "streams": len(clients),
        "orders": trading.orders,
        "heartbeats of a stream, least": min(one.heartbeats for one in clients),
        "longest silence, s": f"{max(one.longest_silence_s for one in clients):.1f}",
        "memory of market-data after 2 min, at the end, most, MiB": f"{memory[0]:.0f}, {memory[-1]:.0f}, {max(memory):.0f}",
    }
    write_section(repository, SOAK, facts, SOAK_TEXT)


def resident_mib(pid: int) -> float:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - of the system
        return int(file.read().split()[1]) * 4096 / 2**20

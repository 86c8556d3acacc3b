"""The clients of the order-path benchmarks: what they send, and what they measure. Raw stubs, so that the SDK's own
work is not counted as the engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from pincex.trading.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    admin_service_pb2,
    admin_service_pb2_grpc,
    order_commands_pb2,
    order_service_pb2_grpc,
    order_session_pb2,
    types_pb2,
)
from tests.bench.engine_process import ECHO_METHOD

Call = Callable[[order_commands_pb2.PlaceOrderRequest], Any]


@dataclass(slots=True)
class Outcome:
    """What a load did."""

    count: int = 0
    seconds: float = 0.0
    refused: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Done in a second."""
        return self.count / self.seconds

    def percentile(self, share: float) -> float:
        """Latency in milliseconds that this share did not exceed."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def summary(self) -> dict[str, float]:
        """For perf.log."""
        return {
            "per_second": round(self.rate, 1),
            "p50_ms": round(self.percentile(0.50), 3),
            "p95_ms": round(self.percentile(0.95), 3),
            "p99_ms": round(self.percentile(0.99), 3),
            "refused": self.refused,
        }


@contextlib.contextmanager
def without_pauses_of_its_own() -> Iterator[None]:
    """No full garbage collections in the client: one takes 0.1 s among pytest's objects, and would be measured as the
    exchange's. Young ones go on, for grpc.aio leaves cycles behind with every call.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(thresholds[0], thresholds[1], 2_000_000_000)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


class Orders:
    """Limit orders near 50,000, four in ten crossing now and then, small enough never to run out of money."""

    def __init__(self, prefix: str, seed: int = 7) -> None:
        self._prefix = prefix
        self._random = random.Random(seed)
        self._number = 0

    def next(self) -> order_commands_pb2.PlaceOrderRequest:
        """The next order; every one has a client order id."""
        self._number += 1
        pick = self._random.random()
        buy = pick < 0.5
        away = int(self._random.random() * 400) - 20
        price = 5_000_000 - away if buy else 5_000_000 + away
        return order_commands_pb2.PlaceOrderRequest(
            symbol="BTCUSD",
            side=types_pb2.BUY if buy else types_pb2.SELL,
            order_type=types_pb2.LIMIT,
            quantity="0.00100",
            price=f"{price // 100}.{price % 100:02d}",
            time_in_force=types_pb2.IOC if pick > 0.95 else types_pb2.GTC,
            self_trade_prevention=types_pb2.NONE,
            client_order_id=f"{self._prefix}-{self._number}",
        )


def place_call(channel: grpc.aio.Channel) -> Call:
    """The real thing."""
    return order_service_pb2_grpc.OrderServiceStub(channel).PlaceOrder


def echo_call(channel: grpc.aio.Channel) -> Call:
    """The empty one."""
    return channel.unary_unary(
        ECHO_METHOD,
        request_serializer=order_commands_pb2.PlaceOrderRequest.SerializeToString,
        response_deserializer=types_pb2.Order.FromString,
    )


async def unary(call: Call, orders: Orders, *, in_flight: int, seconds: float) -> Outcome:
    """As many calls as `in_flight` callers get through."""
    outcome = Outcome()
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < end:
            request = orders.next()
            started = time.perf_counter()
            await call(request)
            outcome.latencies_ms.append((time.perf_counter() - started) * 1000)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    outcome.seconds = time.perf_counter() - started
    outcome.count = len(outcome.latencies_ms)
    return outcome


async def paced_unary(call: Call, orders: Orders, *, per_second: float, seconds: float) -> Outcome:
    """Calls started at a steady rate, however long they take."""
    outcome = Outcome()
    tasks: set[asyncio.Task[None]] = set()

    async def one() -> None:
        started = time.perf_counter()
        await call(orders.next())
        outcome.latencies_ms.append((time.perf_counter() - started) * 1000)

    started = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - started) < seconds:
        while sent < now * per_second:
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        await asyncio.sleep(0.0005)
    await asyncio.gather(*tasks)
    outcome.seconds = time.perf_counter() - started
    outcome.count = len(outcome.latencies_ms)
    return outcome


async def session(
    channel: grpc.aio.Channel,
    name: str,
    *,
    batches: list[order_session_pb2.OrderSessionRequest],
    outstanding: int,
    per_second: float = 0.0,
) -> Outcome:
    """One order session: batches made beforehand, so many outstanding; paced where a rate is given."""
    stub = order_service_pb2_grpc.OrderServiceStub(channel)
    outcome = Outcome()
    room = asyncio.Semaphore(outstanding)
    sent_at: list[float] = []
    size = len(batches[0].batch.commands)

    async def requests() -> AsyncIterator[order_session_pb2.OrderSessionRequest]:
        yield order_session_pb2.OrderSessionRequest(open=order_session_pb2.OpenSession(session_id=name))
        began = time.perf_counter()
        for number, batch in enumerate(batches):
            if per_second:
                early = began + number * size / per_second - time.perf_counter()
                if early > 0:
                    await asyncio.sleep(early)
            await room.acquire()
            sent_at.append(time.perf_counter())
            yield batch
        yield order_session_pb2.OrderSessionRequest(close=order_session_pb2.CloseSession())

    started = time.perf_counter()
    answered = 0
    async for response in stub.OrderSession(requests()):
        if response.WhichOneof("message") != "results":
            continue
        outcome.latencies_ms.append((time.perf_counter() - sent_at[answered]) * 1000)
        answered += 1
        outcome.count += len(response.results.results)
        outcome.refused += sum(1 for result in response.results.results if result.reason)
        room.release()
    outcome.seconds = time.perf_counter() - started
    return outcome


def session_batches(orders: Orders, *, count: int, size: int) -> list[order_session_pb2.OrderSessionRequest]:
    """`count` batches of `size` orders, numbered from 1."""
    made = []
    for number in range(count):
        batch = order_session_pb2.CommandBatch(first_number=number * size + 1)
        for _ in range(size):
            batch.commands.add(place=orders.next())
        made.append(order_session_pb2.OrderSessionRequest(batch=batch))
    return made


async def prepare(ops_target: str) -> None:
    """Lift the limits that a benchmark would run into: open orders, and money of the account `demo`."""
    async with grpc.aio.insecure_channel(ops_target) as channel:
        admin = admin_service_pb2_grpc.TradingAdminServiceStub(channel)
        await admin.SetAccountLimits(admin_service_pb2.SetAccountLimitsRequest(account="demo", max_open_orders=0))
        accounts = account_service_pb2_grpc.AccountServiceStub(channel)
        for asset, amount in (("BTC", "1000000"), ("USD", "20000000000")):
            request = account_service_pb2.CreditAccountRequest(
                account="demo", asset=asset, amount=amount, request_id=f"bench-{asset}"
            )
            await accounts.CreditAccount(request)

"""What it costs an order that its sender is known by token: direct gRPC, one order in flight, beside anonymous orders.

The engine of the development profile on real PostgreSQL lets both in, by turns in one run, so that the difference is the
token: the header itself, its check, and the sender's limits. `cached` sends one token with every order, as clients do;
`first use` another one with each, so that each signature is verified. Left out: Envoy, which adds its own check.
"""

from __future__ import annotations

import asyncio
import time
from itertools import cycle
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import uvloop

from tests.bench.engine_process import running_engine
from tests.bench.loads import Call, Orders, Outcome, place_call, prepare, without_pauses_of_its_own
from tests.identity_fixture import Issuer, bearer
from tests.postgres_fixture import running_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pincex.trading.v1 import order_commands_pb2
    from tests.bench.engine_process import EngineProcess
    from tests.bench.report import Report

pytestmark = pytest.mark.bench

TURNS = 2_000
TARGET_MS = 0.2
TITLE = "Access tokens, checked by the engine for each order (target: p50 below 0.2 ms more)"


def with_tokens(call: Any, tokens: Iterator[str]) -> Call:
    """The call with the next token each time."""

    def with_next(request: order_commands_pb2.PlaceOrderRequest) -> Any:
        return call(request, metadata=bearer(next(tokens)))

    return with_next


def test_what_a_token_adds_to_an_order(report: Report) -> None:
    with running_postgres() as server:
        database = server.create_database()
        issuer = Issuer(database.auth_url)
        with (
            running_engine(database) as engine,
            without_pauses_of_its_own(),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_measure(report, engine, issuer))


async def _measure(report: Report, engine: EngineProcess, issuer: Issuer) -> None:
    # The account that `prepare` funds; a tier whose limits are out of the way.
    claims: dict[str, Any] = {"account": "demo", "tier": "institution", "expires_in_s": 3_000}
    fresh = iter([issuer.token(**claims) for _ in range(TURNS)])
    await prepare(engine.ops_target)
    async with grpc.aio.insecure_channel(engine.target) as channel:
        place: Any = place_call(channel)
        await _until_known(place, issuer.token(**claims))
        kinds: dict[str, Call] = {
            "anonymous": place,
            "cached": with_tokens(place, cycle([issuer.token(**claims)])),
            "first use": with_tokens(place, fresh),
        }
        found = await _by_turns(kinds)
    base = found["anonymous"].percentile(0.5)
    added = {kind: outcome.percentile(0.5) - base for kind, outcome in found.items()}
    for kind, outcome in found.items():
        figure = f"{outcome.percentile(0.5):.3f} ms" + (f" ({added[kind]:+.3f})" if kind != "anonymous" else "")
        report.add(TITLE, f"{kind}: p50", figure, f"p99 {outcome.percentile(0.99):.2f} ms of {outcome.count:,} orders")
        report.keep(f"token_{kind.replace(' ', '_')}", {**outcome.summary(), "added_p50_ms": round(added[kind], 4)})
    assert max(added.values()) < TARGET_MS, added


async def _by_turns(kinds: dict[str, Call]) -> dict[str, Outcome]:
    """An order of each kind after the other: what else the machine does meets all alike."""
    found = {kind: Outcome() for kind in kinds}
    orders = Orders("turn")
    began = time.perf_counter()
    for _ in range(TURNS):
        for kind, call in kinds.items():
            request = orders.next()
            started = time.perf_counter()
            await call(request)
            found[kind].latencies_ms.append((time.perf_counter() - started) * 1_000)
    for outcome in found.values():
        outcome.count, outcome.seconds = TURNS, time.perf_counter() - began
    return found


async def _until_known(place: Any, token: str) -> None:
    """Return once the engine follows the database and takes the token."""
    async with asyncio.timeout(10):
        while True:
            try:
                await place(Orders("known").next(), metadata=bearer(token))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)
            else:
                return

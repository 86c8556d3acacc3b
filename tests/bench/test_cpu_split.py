"""Where the engine's CPU goes for an order of a session: each step by itself, on batches of 100, in this process.

Left out: gRPC's own work, the event loop, the socket to PostgreSQL; `test_order_path.py` has the whole.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import pytest

from exchange.runtime.clock import SystemClock
from exchange.trading import codec, core_loader
from exchange.trading.bootstrap import development_commands
from exchange.trading.core import commands as cmd
from exchange.trading.core.engine import Engine
from exchange.trading.journal.frame import GENESIS_HASH, Frame
from exchange.trading.journal.memory import MemoryJournal
from exchange.trading.service import requests
from exchange.trading.service.desk import Desk
from exchange.trading.service.results import command_result
from exchange.trading.service.units import MarketUnits
from pincex.trading.v1 import order_session_pb2
from tests.bench.loads import Orders, session_batches
from tests.bench.report import Report

pytestmark = pytest.mark.bench

BATCHES = 400
SIZE = 100
ORDERS = BATCHES * SIZE


def timed(step: Callable[[], Any]) -> tuple[Any, float]:
    """What a step gives, and its microseconds for each order."""
    started = time.perf_counter()
    found = step()
    return found, (time.perf_counter() - started) / ORDERS * 1e6


def fresh_engine() -> Engine:
    """The development markets, and no limit on open orders."""
    engine = Engine()
    setup = [*development_commands(), cmd.set_account_limits("bench", "demo", 0)]
    for sequence, command in enumerate(setup, 1):
        engine.apply(sequence, sequence, command)
    return engine


def seal(parts: list[tuple[list[Any], list[Any]]]) -> None:
    """Encode, digest and chain one frame for each batch."""
    digest, previous, sequence = codec.GENESIS_DIGEST, GENESIS_HASH, 1
    for commands, events in parts:
        encoded = codec.encode_events(events)
        digest = codec.next_digest(digest, encoded)
        frame = Frame.seal(
            shard=0, first_sequence=sequence, last_sequence=sequence + len(commands) - 1, epoch=1, time_ns=1,
            commands=codec.encode_commands(commands), events=encoded, digest=digest, prev_hash=previous,
            format_version=codec.FORMAT_VERSION, rules_version=1,
        )  # fmt: skip
        previous, sequence = frame.hash, sequence + len(commands)


def test_where_the_cpu_of_an_order_goes(report: Report) -> None:
    raw = [batch.SerializeToString() for batch in session_batches(Orders("split"), count=BATCHES, size=SIZE)]
    engine = fresh_engine()
    units = MarketUnits(engine.state, engine.state.markets[0])
    desk = Desk(instance="bench", journal=MemoryJournal(), clock=SystemClock())
    desk._units = [units]

    def check(batches: list[order_session_pb2.OrderSessionRequest]) -> list[list[cmd.Command]]:
        return [[requests.place(item.place, units, "demo") for item in one.batch.commands] for one in batches]

    def apply(commands: list[list[cmd.Command]]) -> list[tuple[list[Any], list[Any], list[Any]]]:
        sequence, parts = engine.state.sequence, []
        for batch in commands:
            events, results = [], []
            for command in batch:
                sequence += 1
                events.append(engine.apply(sequence, sequence, command))
                results.append(engine.result)
            parts.append((batch, events, results))
        return parts

    def reply(parts: list[tuple[list[Any], list[Any], list[Any]]]) -> int:
        size = 0
        for commands, _, results in parts:
            response = order_session_pb2.OrderSessionResponse()
            for command, result in zip(commands, results, strict=True):
                command_result(desk, result, command, response.results.results.add())
            size += len(response.SerializeToString())
        return size

    # As the engine runs: young generations are looked at, the oldest is not.
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(thresholds[0], thresholds[1], 2_000_000_000)
    batches, decode_us = timed(lambda: [order_session_pb2.OrderSessionRequest.FromString(one) for one in raw])
    commands, check_us = timed(lambda: check(batches))
    parts, core_us = timed(lambda: apply(commands))
    _, journal_us = timed(lambda: seal([(part[0], part[1]) for part in parts]))
    size, reply_us = timed(lambda: reply(parts))
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    assert size > 0
    title = f"CPU of an order in a session, by step, core {core_loader.mode()} (gRPC and the event loop come on top)"
    rows = (
        ("decode", decode_us, "protobuf's parser: bytes of the batch"),
        ("checks", check_us, "reading protobuf fields one by one; decimals come from a cache"),
        ("core", core_us, "dict lookups and cache misses; making the order and its events"),
        ("journal", journal_us, "msgpack and SHA-256 over commands and events"),
        ("reply", reply_us, "setting protobuf fields one by one, then serialising"),
    )
    for name, value, limit in rows:
        report.add(title, name, f"{value:.2f} us", limit)
    report.keep("cpu_split_us", {name: round(value, 3) for name, value, _ in rows})

"""The workload of the core's benchmark, and its measurement in a process of its own.

Mix "full": about 50% new limit orders near the touch, 40% cancels, 5% replaces, 5% aggressive orders (a quarter each:
IOC, FOK, MARKET, post-only at the touch); about 10,000 orders resting on 1,000 levels, 50 accounts, fees, funds checks
and self-trade prevention on. Left out: decoding of requests, the journal, publishing.

Each command list is made by playing it into an engine, so that cancels and replaces name orders that are open then;
the same seed makes the same list. Those who need commands for other benchmarks take `Workload`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import time
import timeit
from pathlib import Path
from typing import Any, Final, Literal

from exchange.trading import core_loader
from exchange.trading.codec import decode_commands, encode_commands
from exchange.trading.core import commands as cmd
from exchange.trading.core.commands import Command
from exchange.trading.core.constants import BUY, FOK, GTC, IOC, LIMIT, MARKET, SELL, STP_CANCEL_NEWEST
from exchange.trading.core.engine import Engine
from exchange.trading.core.events import (
    E_KIND,
    O_ORDER_ID,
    ORDER_CANCELLED,
    T_MAKER_OPEN,
    T_MAKER_ORDER,
    T_TAKER_OPEN,
    T_TAKER_ORDER,
    TRADE,
    Event,
)

ROOT: Final = Path(__file__).resolve().parent.parent.parent
ACCOUNTS: Final = tuple(f"account-{number}" for number in range(50))
RESTING: Final = 10_000
MIDDLE: Final = 50_000
DEEPEST: Final = 520
SPREAD: Final = 110
CROSSING: Final = 8
START_NS: Final = 1_700_000_000_000_000_000
STEP_NS: Final = 1_000
BATCH: Final = 1_000
SLICE: Final = 50
"""Batches in a slice: the best slice shows what the core does when the machine is left to it."""
TIMED_COMMANDS: Final = 400_000
"""Commands that are timed one by one, after the run that gives the rate."""

Mode = Literal["pure", "compiled"]


def setup_commands(market: tuple[Any, ...] | None = None) -> list[Command]:
    """Two assets, one market (number 0), and money for each account: what must come before the workload."""
    # BTCUSD: tick 0.01 USD, lot 0.0001 BTC, fees 0.02% and 0.05%, band 50%.
    definition = market or (
        *("BTCUSD", 0, 1, 1, 2, 10_000, 1, 0, 0, 200, 500, 500_000, 50_000, STP_CANCEL_NEWEST, MIDDLE),
    )
    commands = [
        cmd.create_asset("operator", "BTC", 8),
        cmd.create_asset("operator", "USD", 6),
        cmd.create_market("operator", definition),
    ]
    for number, account in enumerate(ACCOUNTS):
        commands += [cmd.credit(account, asset, 10**16, request_id=f"credit-{number}-{asset}") for asset in (0, 1)]
    return commands


def trades_only(count: int) -> list[Command]:
    """So many commands in all: an order rests, the next one takes it whole; each pair is one trade."""
    commands = setup_commands()
    for place in range(count - len(commands)):
        pair, takes = divmod(place, 2)
        account, price = ACCOUNTS[pair % 25 * 2 + takes], MIDDLE + pair % 100
        side = BUY if pair % 2 == takes else SELL
        commands.append(cmd.place(account, 0, side, LIMIT, 10, price, tif=GTC, client_order_id=f"order-{place}"))
    return commands


class Workload:
    """Makes commands one after another. `sequence` is that of the last; times follow from it (`time_of`)."""

    def __init__(self, seed: int = 1, *, identified: bool = False) -> None:
        """`identified` gives each order a client order id, as most clients do."""
        self._random = random.Random(seed)
        self._identified = identified
        self._engine = Engine()
        self._open: list[int] = []
        self._place_of: dict[int, int] = {}
        self._middle = MIDDLE
        self.sequence = 0
        self.trades = 0
        self.setup = [*setup_commands()]
        for command in self.setup:
            self._apply(command)
        while len(self._open) < RESTING:
            self.setup.append(self._apply(self._new()))

    def take(self, count: int) -> list[Command]:
        """The next commands."""
        return [self._apply(self._next()) for _ in range(count)]

    def shape(self) -> dict[str, int]:
        """How many orders rest now, on how many levels, and how many trades there were."""
        market = self._engine.state.markets[0]
        return {
            "resting": market.bids.orders + market.asks.orders,
            "levels": len(market.bids.keys) + len(market.asks.keys),
            "trades": self.trades,
        }

    def _apply(self, command: Command) -> Command:
        self.sequence += 1
        events = self._engine.apply(self.sequence, time_of(self.sequence), command)
        for event in events:
            self._follow(event)
        order = self._engine.state.orders.get(self.sequence)
        if order is not None and order.lots_open:
            self._place_of[self.sequence] = len(self._open)
            self._open.append(self.sequence)
        return command

    def _follow(self, event: Event) -> None:
        if event[E_KIND] == TRADE:
            self.trades += 1
            if event[T_MAKER_OPEN] == 0:
                self._forget(event[T_MAKER_ORDER])
            if event[T_TAKER_OPEN] == 0:
                # A replaced order may trade as the taker.
                self._forget(event[T_TAKER_ORDER])
        elif event[E_KIND] == ORDER_CANCELLED:
            self._forget(event[O_ORDER_ID])

    def _forget(self, order_id: int) -> None:
        place = self._place_of.pop(order_id, None)
        if place is None:
            return
        last = self._open.pop()
        if last != order_id:
            self._open[place] = last
            self._place_of[last] = place

    def _next(self) -> Command:
        chance = self._random.random()
        if chance < 0.5:
            return self._new()
        if chance < 0.9:
            order = self._engine.state.orders[self._random.choice(self._open)]
            return cmd.cancel(order.account.name, order_id=order.order_id)
        if chance < 0.95:
            order = self._engine.state.orders[self._random.choice(self._open)]
            lots = self._random.randint(1, 100)
            return cmd.replace(order.account.name, lots, self._price(order.side), order_id=order.order_id)
        return self._aggressive()

    def _price(self, side: int) -> int:
        """Near the touch: exponentially fewer orders with the distance, a few of them across it."""
        distance = min(int(self._random.expovariate(1 / SPREAD)) - CROSSING, DEEPEST)
        return self._middle - distance if side == BUY else self._middle + distance

    def _new(self) -> Command:
        if self._random.random() < 0.02:
            self._middle += self._random.choice((-1, 1))
        side = self._random.choice((BUY, SELL))
        lots = self._random.randint(1, 100)
        return self._place(side, LIMIT, lots, self._price(side), tif=GTC)

    def _aggressive(self) -> Command:
        side = self._random.choice((BUY, SELL))
        # More than balanced the book would swell, less and it would run dry: the size follows the number resting.
        lots = self._random.randint(1, 200 if len(self._open) > RESTING else 60)
        market = self._engine.state.markets[0]
        opposite = market.asks if side == BUY else market.bids
        touch = opposite.keys[-1] * opposite.sign
        through = touch + 20 if side == BUY else touch - 20
        kind = self._random.randrange(4)
        if kind == 0:
            return self._place(side, LIMIT, lots, through, tif=IOC)
        if kind == 1:
            return self._place(side, LIMIT, lots, through, tif=FOK)
        if kind == 2:
            return self._place(side, MARKET, lots, 0, tif=IOC)
        behind = touch - 1 if side == BUY else touch + 1
        return self._place(side, LIMIT, lots, behind, tif=GTC, post_only=True)

    def _place(self, side: int, kind: int, lots: int, price: int, *, tif: int, post_only: bool = False) -> Command:
        account = self._random.choice(ACCOUNTS)
        client_order_id = f"order-{self.sequence + 1}" if self._identified else ""
        return cmd.place(
            account, 0, side, kind, lots, price, tif=tif, post_only=post_only, client_order_id=client_order_id
        )


def time_of(sequence: int) -> int:
    """Engine time of a command of the workload."""
    return START_NS + sequence * STEP_NS


def play(commands: list[Command], engine: Engine | None = None) -> Engine:
    """Apply commands in sequence, from the engine's next on."""
    engine = engine or Engine()
    apply = engine.apply
    for sequence, command in enumerate(commands, engine.state.sequence + 1):
        apply(sequence, START_NS + sequence * STEP_NS, command)
    return engine


def measure_here(commands: int, *, identified: bool = False) -> dict[str, Any]:
    """Measure in this process, in the mode it was started in; gc is frozen and off for the measurement.

    Commands wait as bytes and are decoded by the thousand, which is not timed: so each is as fresh in the processor's
    caches as one that has just arrived, and names are strings of their own.
    """
    workload = Workload(identified=identified)
    batches = [encode_commands(workload.take(BATCH)) for _ in range(commands // BATCH)]
    shape = workload.shape()
    setup = workload.setup
    del workload
    engine, timed = play(setup), play(setup)
    gc.collect()
    gc.freeze()
    gc.disable()
    slices = [_rate(engine, batches[at : at + SLICE]) for at in range(0, len(batches), SLICE)]
    durations = sorted(_durations(timed, batches[: TIMED_COMMANDS // BATCH]))
    gc.enable()
    count = len(batches) * BATCH
    seconds = sum(taken for _, taken, _ in slices)
    return {
        "mode": core_loader.mode(),
        "identified": identified,
        "commands": count,
        "commands_per_s": round(count / seconds),
        "commands_per_cpu_s": round(count / sum(cpu for _, _, cpu in slices)),
        "best_slice_per_s": round(max(number / taken for number, taken, _ in slices)),
        "p50_us": durations[len(durations) // 2] / 1000,
        "p99_us": durations[len(durations) * 99 // 100] / 1000,
        "p999_us": durations[len(durations) * 999 // 1000] / 1000,
        "tuple_ns": yardstick_ns(),
        "state_hash": engine.state_hash(),
        **shape,
    }


def yardstick_ns() -> float:
    """Nanoseconds that making a tuple of eight fields takes now: what the machine and its Python are worth at the moment."""
    loops = 100_000
    seconds = min(timeit.repeat("(a, a, a, a, a, a, a, a)", "a = 10**6", number=loops, repeat=20))
    return round(seconds / loops * 1e9, 1)


def _rate(engine: Engine, batches: list[bytes]) -> tuple[int, float, float]:
    """(commands, seconds of wall time, seconds of processor time) of applying some batches."""
    count, seconds, cpu_seconds = 0, 0.0, 0.0
    for batch in batches:
        commands = decode_commands(batch)
        started, cpu_started = time.perf_counter(), time.process_time()
        play(commands, engine)
        seconds += time.perf_counter() - started
        cpu_seconds += time.process_time() - cpu_started
        count += len(commands)
    return count, seconds, cpu_seconds


def _durations(engine: Engine, batches: list[bytes]) -> list[int]:
    """Nanoseconds of each `apply`."""
    clock = time.perf_counter_ns
    apply = engine.apply
    durations = []
    for batch in batches:
        for sequence, command in enumerate(decode_commands(batch), engine.state.sequence + 1):
            now = START_NS + sequence * STEP_NS
            started = clock()
            apply(sequence, now, command)
            durations.append(clock() - started)
    return durations


def measure_core(commands: int = 1_000_000, mode: Mode = "compiled", *, identified: bool = False) -> dict[str, Any]:
    """Measure the core in a fresh process: commands/s, p50, p99 and p99.9 of one `apply` in us, and the mode it ran in.

    The `mode` of the answer is what really ran: "pure" where the compiled core is absent or stale.
    """
    environment = dict(os.environ, PINCEX_PURE="1" if mode == "pure" else "0")
    arguments = [sys.executable, "-m", "tests.bench.workload", "--commands", str(commands)]
    if identified:
        arguments.append("--identified")
    done = subprocess.run(arguments, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def main() -> None:
    """Measure here and print the result as JSON."""
    parser = argparse.ArgumentParser(description="Measure the core on its workload.")
    parser.add_argument("--commands", type=int, default=1_000_000)
    parser.add_argument("--identified", action="store_true", help="each order with a client order id")
    given = parser.parse_args()
    print(json.dumps(measure_here(given.commands, identified=given.identified), indent=1))


if __name__ == "__main__":
    main()

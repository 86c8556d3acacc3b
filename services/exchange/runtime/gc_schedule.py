"""The garbage collector on a schedule: never a long pause while orders are being worked on.

A full collection visits every object: 30 ms at 100,000 order objects, 348 ms at a million (notes/grpc.md). So, after
start-up, what is there is frozen (never visited again), young generations go on as usual, and the oldest generation
is collected at quiet moments only, its survivors frozen in turn so that the next one starts from nothing. Counting
references frees frozen objects as ever; only a cycle among frozen objects would stay, and our order objects form
none. Where no moment is quiet for long, a collection is forced: memory must not grow without bound. Where so
much was made since the last time that looking through it would take long, it is frozen unseen: young collections have
been through it twice, and what garbage is left of that is cheaper than the pause.
"""

import asyncio
import gc
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from exchange.runtime.clock import Clock, SystemClock

# CPython collects generation 2 after this many collections of generation 1: never, in a process's life.
_NEVER: Final = 2_000_000_000
_BUCKETS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_GENERATIONS: Final = 3
# Collections of generation 1 since the last full one, each of which leaves at most some 7,000 objects to it: beyond
# these a full collection would take more than about 10 ms.
_MAX_YOUNG: Final = 5


class GcPauses(Collector):
    """Times every collection: the histogram `gc_pause_seconds{generation}`.

    The interpreter may collect while a metric's lock is held by this very thread, so the hook counts into plain lists
    and they become metrics when scraped.
    """

    def __init__(self) -> None:
        self._counts = [[0] * (len(_BUCKETS_S) + 1) for _ in range(_GENERATIONS)]
        self._sums = [0.0] * _GENERATIONS
        self._started = 0.0
        self.longest_seconds = 0.0

    def hook(self, phase: str, info: dict[str, int]) -> None:
        """Take a call of `gc.callbacks`."""
        if phase == "start":
            self._started = time.perf_counter()
            return
        seconds = time.perf_counter() - self._started
        generation = info["generation"]
        self._counts[generation][bisect_left(_BUCKETS_S, seconds)] += 1
        self._sums[generation] += seconds
        self.longest_seconds = max(self.longest_seconds, seconds)

    def collect(self) -> Iterable[Metric]:
        """Yield the histogram."""
        family = HistogramMetricFamily(
            "gc_pause_seconds", "How long the process stood still for the garbage collector.", labels=["generation"]
        )
        for generation in range(_GENERATIONS):
            buckets: list[tuple[str, float]] = []
            total = 0
            for bound, count in zip((*map(str, _BUCKETS_S), "+Inf"), self._counts[generation], strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric([str(generation)], buckets, self._sums[generation])
        yield family


class GcSchedule:
    """Decides when the oldest generation is collected.

    `start` after start-up, `tick` now and then (or `run` as a task), `stop` at the end. `is_quiet` says whether a
    pause of a few milliseconds would delay nobody now. A collection is due `interval_seconds` after the last; it
    waits for quiet, at most `max_wait_seconds`.
    """

    def __init__(
        self,
        *,
        is_quiet: Callable[[], bool],
        registry: CollectorRegistry | None = None,
        interval_seconds: float = 10.0,
        max_wait_seconds: float = 120.0,
        clock: Clock | None = None,
    ) -> None:
        self._is_quiet = is_quiet
        self._interval = interval_seconds
        self._max_wait = max_wait_seconds
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._last = self._clock.monotonic()
        self._old_thresholds: tuple[int, int, int] | None = None
        self._young_before = 0
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("gc")
        self.pauses = GcPauses()
        if registry is not None:
            registry.register(self.pauses)

    def start(self) -> None:
        """Collect, freeze what start-up made, and switch automatic full collections off. Once."""
        if self._old_thresholds is not None:
            return
        gc.callbacks.append(self.pauses.hook)
        self._old_thresholds = gc.get_threshold()
        # What start-up made is looked through once, however much it is.
        self._young_before = gc.get_stats()[1]["collections"]
        self._collect()
        gc.set_threshold(self._old_thresholds[0], self._old_thresholds[1], _NEVER)
        self._log.info("garbage collector frozen", objects=gc.get_freeze_count())

    def stop(self) -> None:
        """Give the interpreter its own schedule back."""
        if self._old_thresholds is None:
            return
        gc.set_threshold(*self._old_thresholds)
        self._old_thresholds = None
        gc.callbacks.remove(self.pauses.hook)
        gc.unfreeze()

    def tick(self) -> bool:
        """Collect where it is due and the moment is quiet, or the wait was too long; tell whether it did."""
        waited = self._clock.monotonic() - self._last
        if self._old_thresholds is None or waited < self._interval:
            return False
        forced = waited >= self._interval + self._max_wait
        if not forced and not self._is_quiet():
            return False
        if forced:
            self._log.warning("full garbage collection without a quiet moment", waited_seconds=round(waited, 1))
        self._collect()
        return True

    async def run(self, poll_seconds: float = 0.25) -> None:
        """Tick until cancelled."""
        while True:
            await asyncio.sleep(poll_seconds)
            self.tick()

    def _collect(self) -> None:
        if gc.get_stats()[1]["collections"] - self._young_before <= _MAX_YOUNG:
            gc.collect()
        gc.freeze()
        self._young_before = gc.get_stats()[1]["collections"]
        self._last = self._clock.monotonic()

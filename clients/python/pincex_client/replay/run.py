"""One run from beginning to end: prepare, play, gather, compare."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pincex_client.client import ExchangeClient
from pincex_client.errors import Unavailable
from pincex_client.feeds import OrdersSnapshot
from pincex_client.models import Book, Fill
from pincex_client.replay.compare import Difference, compare_book, compare_fills
from pincex_client.replay.fills import FillLog
from pincex_client.replay.flow import FlowBook, FlowCommand, FlowFill
from pincex_client.replay.plan import Plan, prepare
from pincex_client.replay.player import Played, play
from pincex_client.session import OrderSession
from pincex_client.transport import within

Answer = TypeVar("Answer")

BOOK_DEPTH = 20
# Seconds without anything new.
EVENTS_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Flow:
    """What is played and what is expected of it; None: not compared."""

    commands: Sequence[FlowCommand]
    fills: Sequence[FlowFill] | None
    book: FlowBook | None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How it is played. `patience` is how many seconds of outage the run sits out."""

    rate: float | None = None
    window: int = 2_000
    batch_size: int = 500
    patience: float = 120.0
    resumed: bool = False


@dataclass(slots=True)
class Report:
    """What came of it. Latencies in milliseconds."""

    symbol: str
    run_id: str
    account: str
    commands: int = 0
    elapsed: float = 0.0
    commands_per_second: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    fills: int = 0
    fills_compared: int = 0
    refused: int = 0
    levels_compared: int = 0
    reconnects: int = 0
    resent: int = 0
    sessions_lost: int = 0
    last_sequence: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether all that was compared is equal."""
        return not self.differences


class Replay:
    """Plays one flow."""

    def __init__(self, exchange: ExchangeClient, plan: Plan, flow: Flow, options: RunOptions) -> None:
        self._exchange = exchange
        self._plan = plan
        self._flow = flow
        self._options = options
        self._log = FillLog()

    async def run(self, progress: Callable[[int], None] | None = None) -> Report:
        """Play and compare. Raises FlowError and ExchangeError for what keeps it from being played."""
        exchange, plan, options = self._exchange, self._plan, self._options
        await self._insist(lambda: prepare(exchange, plan))
        token = await self._insist(self._mark)
        session = exchange.session(
            window=options.window, batch_size=options.batch_size, reconnect_deadline=options.patience
        )
        async with session:
            played = await play(session, self._flow.commands, plan, rate=options.rate, progress=progress)
        report = self._report(played, session)
        listed = await self._insist(lambda: exchange.list_fills(plan.symbol, min_sequence=played.last_sequence))
        if not options.resumed:
            report.differences += await self._gather(token, listed, played.last_sequence)
        self._log.add_all(listed)
        fills = self._log.fills(plan.prefix, played.seq_of_sequence)
        self._compare(report, fills, played, await self._book(played))
        return report

    async def _mark(self) -> str:
        """Where the account's events stand now. They are read from there after the play, so as not to slow it."""
        async with self._exchange.order_events(max_downtime=self._options.patience) as events:
            async for update in events:
                if isinstance(update, OrdersSnapshot):
                    break
            return events.resume_token

    async def _gather(self, token: str, listed: Sequence[Fill], sequence: int) -> list[Difference]:
        """Take in the fills that the events tell after `token`, until they are at `sequence` with all that is listed.

        A stream that leaves out what the list has, and does not say so by a new snapshot, is a difference of its own.
        """
        events = self._exchange.order_events(fills_only=True, resume_token=token, max_downtime=self._options.patience)
        missing = {(fill.trade_id, fill.is_maker) for fill in listed}

        async def read() -> None:
            async for update in events:
                if isinstance(update, Fill):
                    self._log.add(update)
                    missing.discard((update.trade_id, update.is_maker))
                if events.snapshots or not missing:
                    return

        reader = asyncio.create_task(read())
        reached = asyncio.create_task(events.reached(sequence))
        before = -1
        try:
            # A busy exchange takes its time: what matters is that something comes.
            while not reader.done() and (missing or not reached.done()) and before < events.sequence:
                before = events.sequence
                waiting = [reader] if reached.done() else [reader, reached]
                await asyncio.wait(waiting, timeout=EVENTS_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            reached.cancel()
            await asyncio.gather(reader, reached, return_exceptions=True)
            await events.aclose()
        if events.snapshots or not missing:
            return []
        return [Difference("events", "the end", "every listed trade", f"{len(missing)} sides of trades not told")]

    async def _book(self, played: Played) -> Book | None:
        if self._flow.book is None:
            return None
        depth = max(BOOK_DEPTH, len(self._flow.book.bids), len(self._flow.book.asks))
        return await self._insist(
            lambda: self._exchange.get_order_book(self._plan.symbol, depth=depth, min_sequence=played.last_sequence)
        )

    async def _insist(self, attempt: Callable[[], Awaitable[Answer]]) -> Answer:
        """Sit out an outage: every call of a run may be repeated."""
        return await within(self._options.patience, attempt, again=lambda error: isinstance(error, Unavailable))

    def _report(self, played: Played, session: OrderSession) -> Report:
        return Report(
            self._plan.symbol,
            self._plan.run_id,
            self._plan.account,
            commands=len(played.results),
            elapsed=played.elapsed,
            commands_per_second=len(played.results) / played.elapsed if played.elapsed else 0.0,
            latency_ms=percentiles(played.latencies),
            refused=sum(result.refused for result in played.results.values()),
            reconnects=session.reconnects,
            resent=session.resent,
            sessions_lost=session.sessions_lost,
            last_sequence=played.last_sequence,
        )

    def _compare(self, report: Report, fills: list[FlowFill], played: Played, book: Book | None) -> None:
        report.fills = len(fills)
        for seq, result in sorted(played.results.items()):
            if result.refused:
                text = f"refused, {result.reason}: {result.message}"
                report.differences.append(Difference("command", f"command {seq}", "accepted", text))
        if self._flow.fills is not None:
            report.fills_compared = len(self._flow.fills)
            report.differences += compare_fills(self._flow.fills, fills)
        if self._flow.book is not None and book is not None:
            report.levels_compared = len(self._flow.book.bids) + len(self._flow.book.asks)
            report.differences += compare_book(self._flow.book, book)


def percentiles(latencies: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the maximum, seconds in, milliseconds out; nothing for nothing."""
    if not latencies:
        return {}
    ordered = sorted(latencies)
    picked = {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in SHARES.items()}
    return {name: round(value * 1_000, 3) for name, value in picked.items()}


SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}

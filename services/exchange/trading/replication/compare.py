"""The state of all instances at one and the same sequence, side by side; the leader asks."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from exchange.trading.replication.downlinks import Downlink, Downlinks
from exchange.trading.replication.messages import (
    FOLLOWER,
    LEADER,
    Comparison,
    LinkLost,
    ReplicaInfo,
    ReplicaState,
    StateReport,
    StateRequest,
)
from exchange.trading.seat import Stopped
from exchange.trading.sequencer import Sequencer

ANSWER_WAIT_S: Final = 2.0
"""How long a follower may take to report."""

MAX_WAITING: Final = 16
"""Comparisons that may be under way at a time."""


class Comparer:
    """Compares on behalf of the leader; one a leadership."""

    def __init__(self, me: ReplicaInfo, sequencer: Sequencer, links: Downlinks) -> None:
        self._me = me
        self._sequencer = sequencer
        self._links = links
        self._last_id = 0
        self._waiting: dict[int, dict[int, asyncio.Future[StateReport]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        links.on_report = self._reported
        links.on_compare = self._asked

    async def compare(self, symbol: str) -> Comparison:
        """Hash the state of this core and of all followers at the end of the same frame; `symbol` names a book that is
        hashed too, "" none. Raises LinkLost where too many comparisons are under way, or this leader has stopped.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise LinkLost("too many comparisons are under way")
        self._last_id += 1
        number = self._last_id
        links = self._links.links
        reports = self._waiting[number] = {link.number: asyncio.get_running_loop().create_future() for link in links}
        own: asyncio.Future[ReplicaState] = asyncio.get_running_loop().create_future()

        def look(sequence: int) -> None:
            engine = self._sequencer.engine
            book_hash = engine.book_hash(symbol) if symbol in engine.state.market_index else ""
            # Asked before the frame is durable, so before any follower can have it.
            for link in links:
                link.ask_state(StateRequest(number, sequence, symbol))
            if not own.done():
                own.set_result(ReplicaState(self._me.at(LEADER, sequence), engine.state_hash(), book_hash))

        try:
            self._sequencer.at_frame_end(look)
            async with asyncio.timeout(ANSWER_WAIT_S):
                mine = await own
                await self._sequencer.reached(mine.replica.sequence)
            if reports:
                await asyncio.wait(reports.values(), timeout=ANSWER_WAIT_S)
        except (TimeoutError, Stopped):
            raise LinkLost("this leader came to no end of a frame in time") from None
        finally:
            del self._waiting[number]
        states = [mine]
        for link in links:
            report = reports[link.number]
            told = report.result() if report.done() else StateReport(number, "", "")
            states.append(ReplicaState(link.replica.at(FOLLOWER, link.sequence), told.state_hash, told.book_hash))
        return Comparison(number, mine.replica.sequence, tuple(states))

    def stop(self) -> None:
        """End what followers have asked for."""
        for task in self._tasks:
            task.cancel()

    def _reported(self, link: Downlink, report: StateReport) -> None:
        future = self._waiting.get(report.id, {}).get(link.number)
        if future is not None and not future.done():
            future.set_result(report)

    def _asked(self, link: Downlink, number: int, symbol: str) -> None:
        task = asyncio.create_task(self._answer(link, number, symbol))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, link: Downlink, number: int, symbol: str) -> None:
        with contextlib.suppress(LinkLost):
            found = await self.compare(symbol)
            link.tell_comparison(Comparison(number, found.sequence, found.states))

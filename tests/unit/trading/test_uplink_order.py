"""A session's commands that wait at a follower keep their order, also where one of them fails."""

from __future__ import annotations

import asyncio

from exchange.runtime.clock import ManualClock
from exchange.trading.core import commands as cmd
from exchange.trading.core import constants as c
from exchange.trading.core.commands import Command
from exchange.trading.core.events import Result
from exchange.trading.replication.messages import Outcome, Status
from exchange.trading.replication.uplink import Uplink
from exchange.trading.seat import Stalled


def _order(session: str, number: int) -> Command:
    return cmd.place("demo", 0, c.BUY, c.LIMIT, 100, 4_000_000, tif=c.GTC, session=session, number=number)


def _failed(future: asyncio.Future[list[Result]]) -> bool:
    return future.done() and isinstance(future.exception(), Stalled)


async def test_what_a_session_asked_after_something_that_was_refused_fails_with_it():
    uplink = Uplink(ManualClock(), attended=list)
    before = uplink.submit([_order("s1", 1)])
    refused = uplink.submit([_order("s1", 2)])
    other = uplink.submit([_order("s2", 1)])
    after = uplink.submit([_order("s1", 3), _order("s1", 4)])
    uplink._take_outcome(Outcome(2, Status.STALLED))
    assert [_failed(future) for future in (before, refused, other, after)] == [False, True, False, True]
    assert uplink.queue_depth == 2
    assert len(uplink.take_pending()) == 2
    uplink.stop()


async def test_what_has_waited_for_too_long_takes_its_sessions_younger_commands_with_it():
    clock = ManualClock()
    uplink = Uplink(clock, attended=list)
    old = uplink.submit([_order("s1", 1)])
    clock.advance(uplink.limits.hold_s - 1)
    young = uplink.submit([_order("s1", 2)])
    other = uplink.submit([_order("s2", 1)])
    clock.advance(1)
    uplink._expire()
    assert [_failed(future) for future in (old, young, other)] == [True, True, False]
    uplink.stop()
    assert other.exception() is not None

"""Time: it only grows, falls due without commands, and rides over clocks that jump."""

import asyncio

import pytest

from exchange.trading import codec
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import CANCEL_EXPIRED
from exchange.trading.core.events import E_KIND, OC_REASON, ORDER_CANCELLED
from exchange.trading.sequencer import SequencerLimits
from tests.integration.journal.waiting import until
from tests.unit.trading.sequencer_rig import START_NS, Rig, turns

pytestmark = pytest.mark.core

MS = 1_000_000
SECOND = 1_000 * MS


def expired(rig: Rig) -> bool:
    return any(event[E_KIND] == ORDER_CANCELLED and event[OC_REASON] == CANCEL_EXPIRED for event in rig.events)


async def test_orders_expire_without_a_command():
    rig = await Rig().start()
    await rig.place("a", expire_ns=START_NS + 20 * MS)
    await turns()
    assert not expired(rig)
    rig.clock.advance(0.021)
    await until(lambda: expired(rig))


async def test_nothing_ticks_while_nothing_is_due():
    rig = await Rig().start()
    await rig.place("a", expire_ns=START_NS + 5 * SECOND)
    frames = len(rig.journal.begun)
    await asyncio.sleep(0.03)
    assert len(rig.journal.begun) == frames


async def test_orders_expire_after_a_restart_without_a_command():
    rig = await Rig().start()
    await rig.place("a", expire_ns=START_NS + 20 * MS)
    rig.sequencer.stop()
    await rig.start()
    rig.clock.advance(0.05)
    await until(lambda: expired(rig), 5.0)


async def test_an_order_that_expired_while_nobody_led_goes_at_once():
    rig = await Rig().start()
    await rig.place("a", expire_ns=START_NS + 20 * MS)
    rig.sequencer.stop()
    rig.clock.advance(3_600)
    await rig.start()
    await until(lambda: expired(rig), 5.0)


async def test_a_clock_that_jumps_ahead_is_noticed():
    rig = await Rig().start()
    await rig.place("a", expire_ns=START_NS + 3_600 * SECOND)
    rig.clock.set_time_ns(START_NS + 3_601 * SECOND)
    await until(lambda: expired(rig), 5.0)


async def test_a_clock_going_backwards_never_takes_time_back():
    rig = await Rig().start()
    rig.clock.advance(10)
    await rig.place("a")
    rig.clock.set_time_ns(START_NS - 3_600 * SECOND)
    await rig.place("b")
    rig.clock.set_time_ns(START_NS + 11 * SECOND)
    await rig.place("c")
    times = [frame.time_ns for frame in rig.journal.begun]
    assert times == [START_NS + 10 * SECOND, START_NS + 10 * SECOND, START_NS + 11 * SECOND]
    assert (await rig.recovered()).engine.state_hash() == rig.engine.state_hash()


async def test_ticks_do_not_pile_up_in_a_frame_that_waits():
    """Its commands share the time at which it was begun: only the next frame can bring the expiry about."""
    rig = await Rig(SequencerLimits(stall_fail_s=60.0)).start()
    rig.journal.holding = True
    rig.place("committing", expire_ns=START_NS + 10 * MS)
    await until(rig.appending)
    rig.place("waiting")
    await turns()
    rig.clock.advance(0.02)
    await asyncio.sleep(0.06)
    rig.journal.holding = False
    rig.journal.commit()
    await until(lambda: expired(rig), 5.0)
    kinds = [command[cmd.C_KIND] for frame in rig.journal.begun for command in codec.decode_commands(frame.commands)]
    assert kinds.count(cmd.TICK) == 1

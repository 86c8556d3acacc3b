"""Snapshots: the same state again, and the same future."""

import random

import msgspec
import pytest

from exchange.trading.core import commands as cmd
from exchange.trading.core.engine import Engine
from exchange.trading.core.invariants import check_market, check_money
from tests.unit.core.desk import Desk
from tests.unit.core.digests import Player, flow

pytestmark = pytest.mark.core


def through_msgpack(engine: Engine) -> Engine:
    dumped = msgspec.msgpack.decode(msgspec.msgpack.encode(engine.snapshot()))
    return Engine.restore(dumped)


def test_an_engine_restored_at_any_point_goes_on_as_the_one_dumped(seed: int) -> None:
    listed = flow(seed, 2_500)
    whole = Player()
    whole.play(listed)
    assert whole.trades > 150
    draw = random.Random(seed)
    for _ in range(8):
        cut = draw.randrange(20, len(listed))
        first = Player()
        first.play(listed[:cut])
        rest = Player(through_msgpack(first.engine))
        assert rest.engine.state_hash() == first.engine.state_hash()
        rest.digest = first.digest.copy()
        rest.play(listed[cut:])
        assert rest.digest.hexdigest() == whole.digest.hexdigest(), f"restored after {cut} commands"
        assert rest.engine.state_hash() == whole.engine.state_hash(), f"restored after {cut} commands"
        assert rest.engine.due_ns() == whole.engine.due_ns()


def test_a_restored_engine_is_sound(seed: int) -> None:
    player = Player()
    player.play(flow(seed, 1_500))
    state = through_msgpack(player.engine).state
    findings = check_money(state)
    for market in state.markets:
        findings += check_market(state, market)
    assert [finding for finding in findings if not finding[1]] == []


def test_a_snapshot_shares_nothing_with_the_engine() -> None:
    desk = Desk()
    desk.say("ann buy 5 @ 100 as x")
    dumped = msgspec.msgpack.encode(desk.engine.snapshot())
    snapshot = desk.engine.snapshot()
    desk.say("bob sell 3 @ 100")
    assert msgspec.msgpack.encode(snapshot) == dumped


def test_every_part_of_the_state_is_in_its_hash() -> None:
    """Commands of all kinds, each of which must change the hash beyond sequence and time."""
    desk = Desk()
    desk.say("ann buy 5 @ 100 as x")
    desk.send(cmd.open_session("ann", "s", cancel_on_disconnect=False, grace_ms=0, dead_man_ms=0))
    for command in (
        desk.command("bob sell 3 @ 100"),
        desk.command("ann reduce x by 1"),
        desk.command("ann buy 2 stop 200"),
        desk.command("ann buy 2 @ 50 gtd=900"),
        cmd.credit("dee", 0, 1, request_id="c"),
        cmd.hold("dee", 0, 1, request_id="h"),
        cmd.set_market_mode("operator", 0, 2),
        cmd.set_switch("operator", 2, on=True),
        cmd.set_account_limits("operator", "ann", 7),
        cmd.set_retention("operator", 9, 9, 9),
        cmd.update_market("operator", 0, {9: 1}),
        cmd.open_session("ann", "s", cancel_on_disconnect=True, grace_ms=0, dead_man_ms=0),
        cmd.cancel("ann", order_id=1, session="s", number=1),
        cmd.cancel("ann", order_id=1, request_id="known"),
    ):
        before, after = Engine.restore(desk.engine.snapshot()), Engine.restore(desk.engine.snapshot())
        before.apply(before.state.sequence + 1, 0, cmd.tick())
        after.apply(after.state.sequence + 1, 0, command)
        assert before.state_hash() != after.state_hash(), command
        desk.send(command)


def test_another_format_is_refused_by_its_number() -> None:
    dumped = Desk().engine.snapshot()
    dumped[0] = 99
    with pytest.raises(ValueError, match="snapshot format 99"):
        Engine.restore(dumped)


def test_a_snapshot_holds_no_number_beyond_64_bits() -> None:
    player = Player()
    player.play(flow(1, 1_000))
    msgspec.msgpack.encode(player.engine.snapshot())

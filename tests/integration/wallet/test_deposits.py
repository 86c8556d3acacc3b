"""Money that comes in: credited once, taken back where the network takes it back, and nothing of it lost whatever fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exchange.wallet.freezes import is_frozen
from tests.integration.wallet.crashes import Killed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.integration.wallet.world import World

BTC = 10**8


async def frozen(world: World, account: str) -> bool:
    async with world.outside.connection() as connection:
        return await is_frozen(connection, account)


async def credited(world: World, account: str = "demo", units: int = BTC) -> str:
    """A deposit that stands on the balance; its transaction."""
    name = await world.pay_in(account, "BTC", units)
    await world.chain.grow(2)
    await world.work()
    assert world.deposits()[-1][1] == "CREDITED"
    return name


# --- forward ---


async def test_a_deposit_is_seen_then_confirmed_and_credited_once(world: World) -> None:
    await world.pay_in("demo", "BTC", BTC)
    await world.work()
    assert world.deposits() == [("tx-1", "SEEN", 1)]
    assert world.engine.total("BTC") == 0
    await world.chain.grow()
    await world.work()
    assert world.deposits() == [("tx-1", "SEEN", 1)], "one confirmation of two"
    await world.chain.grow()
    await world.work()
    assert world.deposits() == [("tx-1", "CREDITED", 1)]
    assert world.engine.free["demo", "BTC"] == BTC
    await world.settle_down()
    world.check_whole()
    assert list(world.engine.credits) == ["deposit:simulated:1"]


async def test_the_same_report_again_changes_nothing(world: World) -> None:
    await credited(world)
    rows = "SELECT to_jsonb(d) - 'next_at' FROM wallet_deposits d"
    before = world.sql(rows)
    world.sql("UPDATE wallet_cursors SET cursor = 0")
    await world.work()
    assert world.sql(rows) == before
    world.check_whole()


async def test_two_outputs_to_the_same_address_are_two_deposits(world: World) -> None:
    await credited(world)
    await credited(world)
    assert world.engine.free["demo", "BTC"] == 2 * BTC


async def test_money_to_an_address_that_nobody_was_given_is_put_on_record(world: World) -> None:
    await world.chain.deposit("sim1btc" + "0" * 24, "BTC", BTC, "stray")
    await world.settle_down()
    assert world.deposits() == []
    assert world.sql("SELECT transaction_id, amount, vanished FROM wallet_unassigned") == [("stray", BTC, False)]
    await world.chain.vanish("stray")
    world.sql("UPDATE wallet_cursors SET cursor = 0")
    await world.settle_down()
    assert world.sql("SELECT vanished FROM wallet_unassigned") == [(True,)], "an older report does not bring it back"


async def test_what_is_on_record_as_nobodys_stays_so_when_its_address_is_given_away(world: World) -> None:
    address = await world.address("demo", "BTC")
    world.sql("DELETE FROM wallet_deposit_addresses")
    await world.chain.deposit(address, "BTC", BTC, "early")
    await world.work()
    assert await world.address("demo", "BTC") == address
    await world.settle_down()
    assert world.deposits() == []
    assert world.sql("SELECT transaction_id FROM wallet_unassigned") == [("early",)]


async def test_an_asset_that_the_engine_does_not_know_is_nobodys(world: World) -> None:
    address = await world.address("demo", "ETH")
    del world.assets.known["ETH"]
    await world.chain.deposit(address, "ETH", 5, "unknown")
    await world.settle_down()
    assert world.sql("SELECT asset FROM wallet_unassigned") == [("ETH",)]


async def test_a_deposit_goes_on_when_its_asset_is_no_longer_carried(world: World) -> None:
    await world.pay_in("demo", "ETH", 5)
    await world.work()
    world.networks._terms = ()
    await world.settle_down()
    assert [status for _, status, _ in world.deposits()] == ["CREDITED"]
    assert world.sql("SELECT * FROM wallet_unassigned") == []


async def test_a_transaction_reported_with_another_amount_keeps_the_first(world: World) -> None:
    await credited(world)
    await world.pay_in("demo", "BTC", BTC)
    world.sql("UPDATE sim_reports SET amount = 1 WHERE number = (SELECT max(number) FROM sim_reports)")
    world.sql("UPDATE sim_reports SET transaction_id = 'tx-1' WHERE number = (SELECT max(number) FROM sim_reports)")
    await world.work()
    assert world.sql("SELECT amount FROM wallet_deposits") == [(BTC,)]


# --- back ---


async def test_one_that_vanishes_before_it_is_credited_is_orphaned(world: World) -> None:
    seen = await world.pay_in("demo", "BTC", BTC)
    await world.work()
    await world.chain.vanish(seen)
    await world.settle_down()
    assert world.deposits() == [(seen, "ORPHANED", 1)]
    confirmed = await world.pay_in("demo", "BTC", BTC)
    await world.chain.grow(2)
    await world.drivers[0].drive()
    assert world.deposits()[-1] == (confirmed, "CONFIRMED", 1)
    await world.chain.vanish(confirmed)
    await world.drivers[0].drive()
    assert world.deposits()[-1] == (confirmed, "ORPHANED", 1)
    await world.settle_down()
    world.check_whole()
    assert world.engine.total("BTC") == 0
    assert not world.engine.credits
    assert not await frozen(world, "demo")


@pytest.mark.parametrize("spent", [0, BTC // 4, BTC])
async def test_one_that_vanishes_after_it_is_credited_is_taken_back_as_far_as_it_is_there(
    world: World, spent: int
) -> None:
    name = await credited(world)
    world.engine.spend("demo", "BTC", spent)
    await world.chain.vanish(name)
    await world.settle_down()
    world.check_whole()
    assert world.deposits() == [(name, "REVERSED", 1)]
    assert world.sql("SELECT recovered, lost, reversal FROM wallet_deposits") == [(BTC - spent, spent, "DONE")]
    assert world.engine.free["demo", "BTC"] == 0
    assert world.engine.free["other", "BTC"] == spent, "who has traded for it keeps it"
    assert world.ledger.losses == ({"loss:simulated:1": ("custody:simulated", "BTC", spent)} if spent else {})
    assert await frozen(world, "demo")


async def test_no_more_is_taken_back_than_came(world: World) -> None:
    world.engine.give("demo", "BTC", 3 * BTC)
    name = await credited(world)
    await world.chain.vanish(name)
    await world.work()
    assert world.engine.free["demo", "BTC"] == 3 * BTC
    assert world.ledger.losses == {}


async def test_one_that_vanishes_while_the_engine_is_asked_is_credited_and_then_reversed(world: World) -> None:
    name = await world.pay_in("demo", "BTC", BTC)
    await world.chain.grow(2)
    await world.drivers[0].drive()
    world.engine.lost_answers = 1
    await world.drivers[1].drive()
    assert world.deposits() == [(name, "CONFIRMED", 1)], "credited, and nobody knows"
    await world.chain.vanish(name)
    await world.settle_down()
    assert world.deposits() == [(name, "REVERSED", 1)]
    assert world.engine.total("BTC") == 0
    world.check_whole()


async def test_a_hold_that_comes_too_late_is_tried_again_with_what_is_left(world: World) -> None:
    name = await credited(world)
    await world.chain.vanish(name)
    await world.drivers[0].drive()
    engine_hold = world.engine.hold

    async def spent_meanwhile(account: str, asset: str, amount: str, request_id: str, reason: str) -> int:
        world.engine.spend("demo", "BTC", BTC // 2)
        world.engine.hold = engine_hold  # type: ignore[method-assign]
        return await engine_hold(account, asset, amount, request_id, reason)

    world.engine.hold = spent_meanwhile  # type: ignore[method-assign]
    await world.settle_down()
    assert world.sql("SELECT recovered, lost, hold_attempt FROM wallet_deposits") == [(BTC // 2, BTC // 2, 2)]
    world.check_whole()


async def test_one_that_comes_again_makes_good_what_was_lost_before_the_account_gets_the_rest(world: World) -> None:
    name = await credited(world)
    world.engine.spend("demo", "BTC", BTC // 4)
    for _ in range(2):
        await world.chain.vanish(name)
        await world.settle_down()
        assert world.engine.free["demo", "BTC"] == 0
        await world.pay_in_again(name)
        await world.settle_down()
        world.check_whole()
        assert world.engine.free["demo", "BTC"] == 3 * BTC // 4
    assert world.engine.free["$suspense", "BTC"] == world.ledger.lost("BTC") == BTC // 2
    assert [status for _, status, _ in world.deposits()] == ["REVERSED", "REVERSED", "CREDITED"]


async def test_one_that_comes_again_waits_until_its_earlier_appearance_is_at_its_end(world: World) -> None:
    name = await credited(world)
    await world.chain.vanish(name)
    world.engine.spend("demo", "BTC", BTC)
    world.ledger.away = 1_000
    await world.work()
    await world.pay_in_again(name)
    await world.chain.grow(3)
    await world.work()
    assert world.deposits() == [(name, "REVERSED", 1), (name, "CONFIRMED", 2)]
    assert "earlier appearance" in world.sql("SELECT problem FROM wallet_deposits WHERE appearance = 2")[0][0]
    world.ledger.away = 0
    await world.settle_down()
    assert world.engine.free["$suspense", "BTC"] == BTC
    assert world.sql("SELECT made_good, sequence IS NOT NULL FROM wallet_deposits WHERE appearance = 2") == [
        (BTC, True)
    ]
    world.check_whole()


async def test_a_late_report_of_what_vanished_does_not_bring_it_back(world: World) -> None:
    name = await world.pay_in("demo", "BTC", BTC)
    await world.chain.vanish(name)
    world.sql("UPDATE sim_reports SET number = number + 10 WHERE kind = 'SEEN'")
    await world.work()
    world.sql(
        "INSERT INTO sim_reports SELECT number + 20, 'CONFIRMATIONS', transaction_id, output, appearance, address, asset,"
        " amount, 9 FROM sim_reports LIMIT 1"
    )
    world.sql("UPDATE sim_chain SET reports = 100")
    await world.settle_down()
    assert world.deposits() == [(name, "ORPHANED", 1)]
    assert not world.engine.credits


# --- failures ---


async def test_an_engine_that_is_away_is_asked_again(world: World) -> None:
    world.engine.away = 3
    await world.pay_in("demo", "BTC", BTC)
    await world.chain.grow(2)
    await world.work()
    status = world.sql("SELECT status, attempts, problem LIKE 'UPSTREAM_UNAVAILABLE%%' FROM wallet_deposits")
    assert status == [("CONFIRMED", 1, True)]
    assert not await world.drivers[1].drive(), "it waits before it asks again"
    assert world.sql("SELECT attempts FROM wallet_deposits") == [(1,)]
    await world.settle_down()
    assert world.engine.free["demo", "BTC"] == BTC
    assert world.sql("SELECT attempts, problem FROM wallet_deposits") == [(0, None)]


async def test_a_deposit_that_the_engine_refuses_keeps_no_other_waiting(world: World) -> None:
    await world.pay_in("demo", "BTC", BTC)
    await world.pay_in("other", "ETH", BTC)
    engine_deposit = world.engine.deposit

    async def refusing(account: str, *values: object, **named: object) -> int:
        if account == "demo":
            raise ZeroDivisionError("a defect")
        return await engine_deposit(account, *values, **named)  # type: ignore[arg-type]

    world.engine.deposit = refusing  # type: ignore[method-assign]
    await world.chain.grow(3)
    await world.work()
    assert [status for _, status, _ in world.deposits()] == ["CONFIRMED", "CREDITED"]
    assert world.sql("SELECT problem FROM wallet_deposits ORDER BY 1") == [("ZeroDivisionError: a defect",), (None,)]
    world.engine.deposit = engine_deposit  # type: ignore[method-assign]
    await world.settle_down()
    world.check_whole()


@pytest.mark.parametrize("happened", [True, False])
async def test_what_the_engine_no_longer_remembers_the_ledger_tells(world: World, *, happened: bool) -> None:
    if happened:
        world.engine.lost_answers = 1
    else:
        world.engine.away = 1
    await world.pay_in("demo", "BTC", BTC)
    await world.chain.grow(2)
    await world.work()
    world.engine.forget()
    world.ledger.behind = not happened
    await world.work()
    if not happened:
        assert "ledger" in world.sql("SELECT problem FROM wallet_deposits")[0][0]
        world.ledger.behind = False
    await world.settle_down()
    assert world.engine.free["demo", "BTC"] == BTC
    world.check_whole()


@pytest.mark.parametrize("step", ["hold", "settle"])
async def test_a_reversal_whose_ids_are_forgotten_goes_on(world: World, step: str) -> None:
    name = await credited(world)
    await world.chain.vanish(name)
    await world.drivers[0].drive()
    call = getattr(world.engine, step)

    async def unanswered(*values: object) -> int:
        await call(*values)
        setattr(world.engine, step, call)
        world.engine.forget()
        world.engine.away = 1
        return int(await call(*values))

    setattr(world.engine, step, unanswered)
    await world.settle_down()
    assert world.sql("SELECT recovered, lost, reversal FROM wallet_deposits") == [(BTC, 0, "DONE")]
    world.check_whole()


# --- kill -9 at every step ---


async def _forward(world: World) -> None:
    await world.pay_in("demo", "BTC", BTC)
    await world.chain.grow(2)


async def _orphan(world: World) -> None:
    name = await world.pay_in("demo", "BTC", BTC)
    await world.chain.grow(2)
    await world.chain.vanish(name)


async def _take_back(world: World) -> None:
    name = await credited(world)
    world.engine.spend("demo", "BTC", BTC // 4)
    await world.chain.vanish(name)


async def _lose(world: World) -> None:
    name = await credited(world)
    world.engine.spend("demo", "BTC", BTC)
    await world.chain.vanish(name)


async def _make_good(world: World) -> None:
    await _take_back(world)
    await world.settle_down(blocks=0)
    await world.pay_in_again(f"tx-{world.names}")
    await world.chain.grow(2)


@pytest.mark.parametrize("prepare", [_forward, _orphan, _take_back, _lose, _make_good])
async def test_killed_at_any_step_the_next_process_ends_what_was_begun(
    world: World, prepare: Callable[[World], Awaitable[None]]
) -> None:
    ends: set[tuple[object, ...]] = set()
    points = 0
    while True:
        await prepare(world)
        world.fuse.lit(points)
        try:
            await world.work()
        except Killed:
            world.restart()
            world.check()
        else:
            break
        await world.settle_down(blocks=0)
        world.check_whole()
        ends.add(
            world.sql(
                "SELECT status, recovered, lost, made_good FROM wallet_deposits ORDER BY deposit_id DESC LIMIT 1"
            )[0]
        )
        # The next round begins with nothing on the account.
        world.engine.spend("demo", "BTC", world.engine.free["demo", "BTC"])
        points += 1
    assert points > 8
    assert len(ends) == 1, f"the outcome depends on where it was killed: {ends}"

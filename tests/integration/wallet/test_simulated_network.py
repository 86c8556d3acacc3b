"""The simulated network keeps what a connector promises, with all its faults."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.wallet.connector import ChainEvent, ConnectorAway, EventKind, Refused, Sent
from tests.integration.wallet.world import world_of

if TYPE_CHECKING:
    from exchange.wallet.simulated.network import SimulatedNetwork
    from tests.integration.wallet.world import World
    from tests.postgres_fixture import Database

OURS = "sim1btc" + "1" * 24
THEIRS = "sim1btc" + "2" * 24
BURNT = "sim1btcdead" + "0" * 20


async def reports(network: SimulatedNetwork, cursor: int = 0) -> list[ChainEvent]:
    """All of them."""
    found: list[ChainEvent] = []
    while page := await network.events(found[-1].number if found else cursor):
        found += page
    return found


async def connected(world: World) -> None:
    """Several connections are open, so that calls at once really are."""
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(world.outside.connection())


async def test_a_send_happens_once_however_often_it_is_asked(world: World) -> None:
    network = world.chain
    await network.deposit(OURS, "BTC", 100, "in")
    await network.grow()
    first = await network.send("w1", "BTC", THEIRS, 60)
    assert isinstance(first, Sent)
    assert await network.send("w1", "BTC", THEIRS, 60) == first
    assert await network.outcome("w1") == first
    assert await network.custody() == {"BTC": 40}
    await network.grow(2)
    assert await network.outcome("w1") == Sent(first.transaction_id, 2)
    await network.reorganise(2)
    assert await network.outcome("w1") == Sent(first.transaction_id, 0), "its block is gone, it waits for another"
    await network.grow()
    assert await network.outcome("w1") == Sent(first.transaction_id, 1)


async def test_two_sends_of_one_id_at_once_are_one(world: World) -> None:
    await world.chain.deposit(OURS, "BTC", 100, "in")
    await world.chain.grow()
    await connected(world)
    answers = await asyncio.gather(*(world.chain.send("w1", "BTC", THEIRS, 60) for _ in range(4)))
    assert len(set(answers)) == 1
    assert await world.chain.custody() == {"BTC": 40}


async def test_reports_made_at_once_are_numbered_one_after_the_other(world: World) -> None:
    await connected(world)
    await asyncio.gather(*(world.chain.deposit(OURS, "BTC", 1, f"in-{number}") for number in range(8)))
    found = await reports(world.chain)
    assert [one.number for one in found] == list(range(1, 9))
    assert {one.transaction_id for one in found} == {f"in-{number}" for number in range(8)}


async def test_what_it_has_not_it_does_not_send(world: World) -> None:
    network = world.chain
    with pytest.raises(ConnectorAway, match="too little"):
        await network.send("w1", "BTC", THEIRS, 1)
    assert await network.outcome("w1") is None
    await network.deposit(OURS, "BTC", 1, "in")
    with pytest.raises(ConnectorAway, match="too little"):
        await network.send("w1", "BTC", THEIRS, 1)
    await network.grow()
    assert isinstance(await network.send("w1", "BTC", THEIRS, 1), Sent)


async def test_a_burnt_address_is_refused_for_good(world: World) -> None:
    refused = await world.chain.send("w1", "BTC", BURNT, 1)
    assert isinstance(refused, Refused)
    assert await world.chain.outcome("w1") == refused == await world.chain.send("w1", "BTC", BURNT, 1)
    assert await world.chain.custody() == {}


async def test_what_goes_to_an_address_of_ours_comes_in_again(world: World) -> None:
    await world.pay_in("ann", "BTC", 100)
    await world.chain.grow()
    sent = await world.chain.send("w1", "BTC", await world.address("bob", "BTC"), 60)
    assert isinstance(sent, Sent)
    await world.chain.grow()
    assert await world.chain.custody() == {"BTC": 100}
    assert [one.amount for one in await reports(world.chain) if one.transaction_id == sent.transaction_id] == [60, 60]


@pytest.mark.parametrize("address", ["", "sim1btc", OURS.upper(), OURS + "0", "sim1eth" + "1" * 24, " " + OURS])
def test_an_address_of_another_form_is_refused(world: World, address: str) -> None:
    with pytest.raises(ServiceError) as caught:
        world.chain.check_address("BTC", address)
    assert (caught.value.reason, caught.value.metadata["field"]) == (ErrorReason.INVALID_FIELD, "address")
    world.chain.check_address("BTC", OURS)


async def test_with_faults_every_report_arrives_and_numbers_rise(wallet_database: Database) -> None:
    async with world_of(wallet_database, seed=13) as world:
        world.clear()
        for number in range(25):
            await world.chain.deposit(OURS, "BTC", number + 1, f"in-{number}")
            await world.chain.grow()
        await world.chain.grow(12)
        found = await reports(world.chain)
        assert [one.number for one in found] == sorted({one.number for one in found})
        assert await reports(world.chain, found[9].number) == found[10:], "it resumes after any number"
        top: dict[tuple[str, int], int] = defaultdict(int)
        gone = {(one.transaction_id, one.appearance) for one in found if one.kind is EventKind.VANISHED}
        for one in found:
            top[one.transaction_id, one.appearance] = max(top[one.transaction_id, one.appearance], one.confirmations)
        last = {f"in-{number}": max(two for name, two in top if name == f"in-{number}") for number in range(25)}
        assert all(top[name, appearance] == 4 for name, appearance in last.items()), "each is confirmed in the end"
        assert {(name, one) for name, appearance in last.items() for one in range(1, appearance)} == gone
        assert gone, "blocks were replaced"
        said = [(one.kind, one.transaction_id, one.appearance, one.confirmations) for one in found]
        assert len(set(said)) < len(said), "something was told twice"


async def test_an_answer_may_be_lost_after_the_send_has_happened(wallet_database: Database) -> None:
    async with world_of(wallet_database, seed=13) as world:
        world.clear()
        await world.chain.deposit(OURS, "BTC", 1_000, "in")
        await world.chain.grow()
        lost = 0
        for number in range(60):
            try:
                await world.chain.send(f"w{number}", "BTC", THEIRS, 1)
            except ConnectorAway:
                lost += 1
                assert isinstance(await world.chain.outcome(f"w{number}"), Sent)
        assert lost
        assert await world.chain.custody() == {"BTC": 940}


async def test_a_network_whose_database_is_away_is_away(world: World) -> None:
    await world.outside.close()
    try:
        for asked in (world.chain.custody(), world.chain.send("w1", "BTC", THEIRS, 1), world.chain.events(0)):
            with pytest.raises(ConnectorAway):
                await asked
    finally:
        await world.outside.open()

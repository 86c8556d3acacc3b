"""A SIGKILL at each point of each life of money that goes out: a new process finishes it, and the money moves once.

The client repeats its request under its id, as one does who got no answer; the operator decides again; the worker does the rest.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from exchange.runtime.errors import ServiceError
from tests.integration.wallet.crashes import Killed
from tests.integration.wallet.outgoing_world import BURNT, COIN, FEE, TO, OutgoingWorld, outgoing_world

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.postgres_fixture import Database

    Life = Callable[[OutgoingWorld, str], Awaitable[None]]

HALF = COIN // 2


async def sent(world: OutgoingWorld, account: str) -> None:
    """From the request to the end, by policy."""
    await world.create(account, "0.5", "w1")
    await world.outgoing.drive()
    await world.chain.grow(2)
    await world.outgoing.drive()


async def approved(world: OutgoingWorld, account: str) -> None:
    """The same, by an operator."""
    made = await world.create(account, "0.75", "w1")
    await world.approve(made.withdrawal_id)
    await world.outgoing.drive()
    await world.chain.grow(2)
    await world.outgoing.drive()


async def cancelled(world: OutgoingWorld, account: str) -> None:
    """Wanted no more."""
    made = await world.create(account, "0.75", "w1")
    await world.cancel(account, made.withdrawal_id)


async def rejected(world: OutgoingWorld, account: str) -> None:
    """Refused by an operator."""
    made = await world.create(account, "0.75", "w1")
    await world.reject(made.withdrawal_id)


async def returned(world: OutgoingWorld, account: str) -> None:
    """Refused by the network."""
    await world.create(account, "0.5", "w1", address=BURNT)
    await world.outgoing.drive()


async def unaffordable(world: OutgoingWorld, account: str) -> None:
    """Refused by the engine."""
    with pytest.raises(ServiceError, match="less available"):
        await world.create(account, "2", "w1")


async def transferred(world: OutgoingWorld, account: str) -> None:
    """To another account."""
    await world.transfer(account, f"{account}-friend", "0.5", "t1")


# What the account has in the end of one coin, what went out to where, and what was earned.
LIVES: dict[Life, tuple[int, list[tuple[str, int]], int, str]] = {
    sent: (COIN - HALF - FEE, [(TO, HALF)], FEE, "SETTLED"),
    approved: (COIN // 4 - FEE, [(TO, COIN * 3 // 4)], FEE, "SETTLED"),
    cancelled: (COIN, [], 0, "WITHDRAWAL_CANCELLED"),
    rejected: (COIN, [], 0, "REJECTED"),
    returned: (COIN, [(BURNT, HALF)], 0, "RETURNED"),
    unaffordable: (COIN, [], 0, "REJECTED"),
    transferred: (COIN - HALF, [], 0, ""),
}


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
async def test_killed_at_any_point_it_is_finished_and_happens_once(wallet_database: Database, life: Life) -> None:
    left, sends, fee, status = LIVES[life]
    async with outgoing_world(wallet_database) as world:
        world.clear()
        await world.fund("whale", "BTC", "1000")
        point = 0
        whole = False
        while not whole:
            account = f"{life.__name__}-{point}"
            # Bought from the whale, whose deposit the network has.
            world.engine.spend("whale", "BTC", COIN, account)
            await world.list_address(account)
            await world.list_address(account, BURNT)
            earned = world.fees()
            world.fuse.lit(point)
            with suppress(Killed):
                await life(world, account)
            whole = not world.fuse.burnt
            world.restart()
            # Who got no answer asks again.
            await life(world, account)
            for _ in range(3):
                if world.under_way():
                    await world.outgoing.drive()
                    await world.chain.grow(2)
            assert world.under_way() == [], point
            assert (world.engine.free[account, "BTC"], world.engine.held[account, "BTC"]) == (left, 0), point
            assert world.sends(account) == sends, point
            assert world.fees() - earned == fee, point
            if status:
                assert world.statuses(account) == [status], point
            else:
                assert world.engine.free[f"{account}-friend", "BTC"] == HALF, point
            point += 1
        world.check_whole()
        assert point > 8, "there was something to be killed"

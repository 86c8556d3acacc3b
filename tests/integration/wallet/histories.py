"""Histories of the wallet: what happens on networks and accounts, in any order, with a crash of the worker at any point.

A history is a list of steps; a step names an action, has two numbers for it to choose by, and says after how many points the process is
killed, in the action or in the worker's round after it, None for not at all. After each step the sums must agree; at the end, when nothing
is under way, exactly.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from exchange.runtime.errors import ServiceError
from exchange.wallet.connector import ConnectorAway
from tests.integration.wallet.crashes import Killed
from tests.integration.wallet.outgoing_world import BURNT, TO, OutgoingWorld, drive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tests.integration.wallet.world import World

    Action = Callable[[Any, int, int], Awaitable[None]]

ACCOUNTS = ("ann", "bob", "cid")
ASSETS = ("BTC", "USD")
SIZES = (1, 999, 2_000_000, 7 * 10**8)
MAX_POINTS = 60
_PENDING = "SELECT withdrawal_id FROM withdrawals WHERE status = 'AWAITING_APPROVAL' AND ending IS NULL"
TO_USD = "sim1usd" + "0" * 23 + "1"


class Step(NamedTuple):
    """One step."""

    action: str
    first: int
    second: int
    killed_after: int | None


async def pay_in(world: World, first: int, second: int) -> None:
    """A deposit appears."""
    await world.pay_in(ACCOUNTS[first % 3], ASSETS[second % 2], SIZES[(first + second) % 4])


async def vanish(world: World, first: int, second: int) -> None:
    """A transaction disappears, wherever it stands."""
    del second
    if world.names:
        await world.chain.vanish(f"tx-{first % world.names + 1}")


async def appear_again(world: World, first: int, second: int) -> None:
    """One that vanished comes again; one that stands stays."""
    del second
    if world.names:
        await world.pay_in_again(f"tx-{first % world.names + 1}")


async def grow(world: World, first: int, second: int) -> None:
    """Some blocks."""
    del second
    await world.chain.grow(first % 3 + 1)


async def reorganise(world: World, first: int, second: int) -> None:
    """Some blocks are replaced."""
    del second
    await world.chain.reorganise(first % 4)


async def spend(world: World, first: int, second: int) -> None:
    """An account trades some of it away."""
    world.engine.spend(ACCOUNTS[first % 3], ASSETS[second % 2], SIZES[second % 4], ACCOUNTS[(first + 1) % 3])


async def lose_answers(world: World, first: int, second: int) -> None:
    """The engine does what it is asked, and nobody hears of it."""
    del second
    world.engine.lost_answers = first % 3


async def be_away(world: World, first: int, second: int) -> None:
    """Engine and ledger do not answer some calls."""
    world.engine.away = first % 3
    world.ledger.away = second % 2


async def forget(world: World, first: int, second: int) -> None:
    """The engine forgets all ids, as it does after a day."""
    del first, second
    world.engine.forget()


async def rest(_world: World, first: int, second: int) -> None:
    """Nothing happens, and the worker works."""
    del first, second


ACTIONS: Mapping[str, Action] = {
    action.__name__: action
    for action in (pay_in, vanish, appear_again, grow, reorganise, spend, lose_answers, be_away, forget, rest)
}


async def withdraw(world: OutgoingWorld, first: int, second: int) -> None:
    """An account asks for a withdrawal, or again for one that it has asked for."""
    if not second % 4:
        world.requests += 1
    account, amount = ACCOUNTS[first % 3], ("0.002", "0.3", "6", "40")[(first + world.requests) % 4]
    asset, address = (("BTC", TO), ("USD", TO_USD), ("BTC", BURNT), ("BTC", TO))[world.requests % 4]
    await world.create(account, amount, f"w-{world.requests}", asset=asset, address=address)


async def decide(world: OutgoingWorld, first: int, second: int) -> None:
    """An operator approves or rejects, or an account cancels, any withdrawal there is."""
    rows = world.sql("SELECT withdrawal_id, account FROM withdrawals ORDER BY number")
    if rows:
        name, account = rows[first % len(rows)]
        if second % 3 == 0:
            await world.cancel(account, name)
        else:
            await (world.approve(name) if second % 3 == 1 else world.reject(name))


async def transfer(world: OutgoingWorld, first: int, second: int) -> None:
    """Between accounts, or again."""
    account, other = ACCOUNTS[first % 3], ACCOUNTS[(first + 1) % 3]
    await world.transfer(account, other, ("0.001", "0.5")[second % 2], f"t-{second % 5}")


async def close_the_gate(world: OutgoingWorld, first: int, second: int) -> None:
    """Settlement says no, or nothing at all; or yes again."""
    world.gate.why, world.gate.away = ("books do not agree" if first % 2 else ""), not second % 4


OUTGOING: Mapping[str, Action] = {action.__name__: action for action in (withdraw, decide, transfer, close_the_gate)}


async def play(world: OutgoingWorld, steps: Sequence[Step]) -> None:
    """A history from its begin to its end, in an empty world."""
    actions = {**ACTIONS, **OUTGOING}
    for account in ACCOUNTS:
        await world.list_address(account)
        await world.list_address(account, BURNT)
        await world.list_address(account, TO_USD, "USD")
    for step in steps:
        if step.killed_after is not None:
            world.fuse.lit(step.killed_after)
        # Calls are refused as they must be; networks that do not answer are asked again; whoever is killed is replaced.
        with suppress(Killed, ConnectorAway):
            with suppress(ServiceError):
                await actions[step.action](world, step.first, step.second)
            await world.work()
        if world.fuse.burnt:
            await _end_all_tasks()
            world.restart()
        world.fuse.out()
        world.check()
    await _end(world)


async def _end(world: OutgoingWorld) -> None:
    """All that stands in the way of an end is taken away: nobody is away, frozen, or short, and operators have decided."""
    world.engine.away = world.engine.lost_answers = world.ledger.away = 0
    world.gate.why, world.gate.away = "", False
    world.sql("UPDATE wallet_freezes SET frozen = false")
    for asset in ASSETS:
        await world.pay_in("whale", asset, 10**11)
    for _ in range(3):
        for (name,) in world.sql(_PENDING):
            await world.reject(name)
        await drive(world, 2)
    await world.settle_down()
    world.check_whole()


async def _end_all_tasks() -> None:
    """Nothing of a process that was killed goes on."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)

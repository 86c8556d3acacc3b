"""Histories of the wallet: what happens on networks and accounts, in any order, with a crash of the worker at any point.

A history is a list of steps; a step names an action, has two numbers for it to choose by, and says after how many points the worker that
runs next is killed, None for not at all. After each step the sums must agree; at the end, when nothing is under way, exactly.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from exchange.wallet.connector import ConnectorAway
from tests.integration.wallet.crashes import Killed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tests.integration.wallet.world import World

    Action = Callable[[Any, int, int], Awaitable[None]]

ACCOUNTS = ("ann", "bob", "cid")
ASSETS = ("BTC", "USD")
SIZES = (1, 999, 2_000_000, 7 * 10**8)
MAX_POINTS = 40


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


async def play(world: World, steps: Sequence[Step], actions: Mapping[str, Action] = ACTIONS) -> None:
    """A history from its begin to its end, in an empty world."""
    for step in steps:
        await actions[step.action](world, step.first, step.second)
        if step.killed_after is not None:
            world.fuse.lit(step.killed_after)
        # A network that does not answer is asked again in the next round; whoever is killed is replaced.
        with suppress(Killed, ConnectorAway):
            await world.work()
        if world.fuse.burnt:
            world.restart()
        world.fuse.out()
        world.check()
    world.engine.away = world.engine.lost_answers = world.ledger.away = 0
    await world.settle_down()
    world.check_whole()

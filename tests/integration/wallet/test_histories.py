"""Money is conserved through any history of deposits, reorgs, trades, withdrawals, transfers, failures and crashes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.integration.wallet.histories import ACTIONS, MAX_POINTS, OUTGOING, Step, play
from tests.integration.wallet.outgoing_world import outgoing_world

if TYPE_CHECKING:
    from tests.postgres_fixture import Database

NUMBERS = st.integers(0, 11)
# Mostly money that comes and blocks that grow: without them there is nothing to go wrong.
NAMES = st.sampled_from([*ACTIONS, *OUTGOING, *("pay_in", "grow", "withdraw") * 3])
STEPS = st.lists(
    st.builds(Step, NAMES, NUMBERS, NUMBERS, st.none() | st.integers(0, MAX_POINTS)), min_size=4, max_size=16
)


# One is credited and nobody hears of it, and it vanishes before it is asked about again.
UNHEARD = [
    Step("pay_in", 0, 0, None),
    Step("lose_answers", 1, 0, None),
    Step("grow", 1, 0, None),
    Step("vanish", 0, 0, 3),
]


def _play(database: Database, seed: int, steps: list[Step]) -> None:
    async def history() -> None:
        async with outgoing_world(database, seed=seed) as world:
            world.clear()
            await play(world, steps)

    asyncio.run(history())


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(seed=0, steps=UNHEARD)
@given(seed=st.integers(0, 50), steps=STEPS)
def test_any_history_conserves_money(wallet_database: Database, seed: int, steps: list[Step]) -> None:
    _play(wallet_database, seed, steps)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), steps=STEPS)
def test_very_many_histories_conserve_money(wallet_database: Database, seed: int, steps: list[Step]) -> None:
    _play(wallet_database, seed, steps)

"""The long campaign of fail-overs: the journal on a pair whose primary is struck again and again, in every way."""

from __future__ import annotations

import asyncio
import os
import random
from statistics import median

import pytest

from exchange.runtime import migrate
from tests.integration.journal.test_fail_over import (
    Strike,
    freeze,
    freeze_postmaster,
    kill,
    kill_postmaster,
    struck_while_appending,
)
from tests.postgres_pair_fixture import running_pair

pytestmark = pytest.mark.long

STRIKES = int(os.environ.get("ROUNDS") or 40)


@pytest.mark.timeout(1_200)
async def test_many_fail_overs_lose_nothing_and_double_nothing(seed: int) -> None:
    rng = random.Random(f"{seed}-campaign")
    strikes: list[Strike] = [rng.choice((kill, kill_postmaster, freeze, freeze_postmaster)) for _ in range(STRIKES)]
    async with running_pair() as pair:
        await asyncio.to_thread(migrate.run, pair.admin_url)
        took = await struck_while_appending(pair, strikes, rng)
    for strike in (kill, kill_postmaster, freeze, freeze_postmaster):
        seconds = [one for made, one in zip(strikes, took, strict=True) if made is strike]
        if seconds:
            print(f"{strike.__name__}: {len(seconds)} times, median {median(seconds):.2f} s, most {max(seconds):.2f} s")

"""Every code counts once: those of the authenticator by their step, those of the reserve one by one."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import psycopg
import pyotp
import pytest

from exchange.auth.encryption import DecryptionError
from exchange.auth.second_factor import RECOVERY_CODES, STEP_S
from exchange.auth.users import User
from exchange.runtime.clock import ManualClock
from exchange.runtime.errors import ErrorReason, ServiceError
from tests.integration.auth.rig import Rig, running_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from tests.postgres_fixture import Database

EMAIL = "alice@example.com"


class Authenticator:
    """A user with the second factor on, and the app that shows its codes; time stands unless it is moved."""

    def __init__(self, rig: Rig, clock: ManualClock, user: User) -> None:
        self.rig, self.clock, self.user = rig, clock, user
        self.secret = ""
        self.recovery_codes: list[str] = []

    def code(self, steps: int = 0) -> str:
        """The code of now, or of some steps later."""
        return pyotp.TOTP(self.secret).at(self.clock.time_ns() // 10**9 + steps * STEP_S)

    async def turn_on(self) -> None:
        self.secret, _ = await self.rig.second_factor.begin(self.user)
        self.recovery_codes = await self.rig.second_factor.confirm(self.user, self.code())
        self.clock.advance(10 * STEP_S)

    async def takes(self, code: str) -> bool:
        return await self.rig.second_factor.verify(self.user, code)


@pytest.fixture
async def off(database: Database) -> AsyncIterator[Authenticator]:
    clock = ManualClock(time.time_ns())
    async with running_rig(database, clock=clock) as rig:
        yield Authenticator(rig, clock, await rig.add_user(EMAIL))


@pytest.fixture
async def on(off: Authenticator) -> Authenticator:
    await off.turn_on()
    return off


async def refused(call: Awaitable[object]) -> int:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.reason


async def test_a_code_of_the_authenticator_counts_once(on: Authenticator) -> None:
    assert await on.takes(on.code())
    assert not await on.takes(on.code())
    assert not await on.takes(on.code(-1)), "older than one that was used"
    assert await on.takes(on.code(1))


@pytest.mark.parametrize("steps", [-2, -1, 0, 1, 2])
async def test_codes_of_one_step_to_either_side_are_taken(on: Authenticator, steps: int) -> None:
    assert await on.takes(on.code(steps)) == (abs(steps) <= 1)


async def test_of_two_uses_of_one_code_at_once_one_wins(on: Authenticator, database: Database) -> None:
    async with running_rig(database, clock=on.clock) as other:
        for code in (on.code(), on.recovery_codes[0]):
            taken = await asyncio.gather(
                *(instance.second_factor.verify(on.user, code) for _ in range(4) for instance in (on.rig, other))
            )
            assert sorted(taken) == [False] * 7 + [True]


async def test_recovery_codes_count_once_each_however_they_are_typed(on: Authenticator) -> None:
    assert len(set(on.recovery_codes)) == RECOVERY_CODES == 10
    assert all(re.fullmatch(r"[A-HJ-NP-Z2-9]{5}-[A-HJ-NP-Z2-9]{5}", code) for code in on.recovery_codes)
    first, second, *_ = on.recovery_codes
    assert await on.takes(first.lower().replace("-", " "))
    assert not await on.takes(first)
    assert await on.takes(second)
    assert await on.rig.second_factor.recovery_codes_left(on.user.user_id) == 8


async def test_new_recovery_codes_void_the_old_ones(on: Authenticator) -> None:
    old = on.recovery_codes
    new = await on.rig.second_factor.renew_recovery_codes(on.user)
    assert not set(new) & set(old)
    assert not await on.takes(old[0])
    assert await on.takes(new[0])


async def test_a_recovery_code_of_one_user_is_nothing_to_another(on: Authenticator) -> None:
    bob = Authenticator(on.rig, on.clock, await on.rig.add_user("bob@example.com"))
    await bob.turn_on()
    assert not await bob.takes(on.recovery_codes[0])
    assert await on.takes(on.recovery_codes[0])


@pytest.mark.parametrize("code", ["", "000000x", "١٢٣٤٥٦", "1" * 33, "A" * 5000, "'; DROP TABLE users; --"])
async def test_what_is_no_code_is_refused(on: Authenticator, code: str) -> None:
    assert not await on.takes(code)
    assert await on.takes(on.code()), "and harms nothing"


async def test_it_counts_only_once_it_is_confirmed(off: Authenticator) -> None:
    off.secret, uri = await off.rig.second_factor.begin(off.user)
    assert parse_qs(urlsplit(uri).query) == {"secret": [off.secret], "issuer": ["PinCEX"]}
    assert not await off.takes(off.code())
    wrong = f"{(int(off.code()) + 1) % 10**6:06d}"
    assert await refused(off.rig.second_factor.confirm(off.user, wrong)) == ErrorReason.CODE_REFUSED
    assert not (await off.rig.user(EMAIL)).second_factor
    first = off.secret
    off.secret, _ = await off.rig.second_factor.begin(off.user)
    assert off.secret != first
    await off.rig.second_factor.confirm(off.user, off.code())
    assert (await off.rig.user(EMAIL)).second_factor
    assert not await off.takes(off.code()), "the code that confirmed is used up"


async def test_of_two_confirmations_at_once_one_shows_recovery_codes(off: Authenticator) -> None:
    off.secret, _ = await off.rig.second_factor.begin(off.user)
    confirm = off.rig.second_factor.confirm
    done = await asyncio.gather(*(confirm(off.user, off.code()) for _ in range(3)), return_exceptions=True)
    shown = [one for one in done if isinstance(one, list)]
    assert len(shown) == 1
    assert await off.rig.second_factor.recovery_codes_left(off.user.user_id) == RECOVERY_CODES


async def test_nothing_happens_out_of_turn(off: Authenticator) -> None:
    factor, state = off.rig.second_factor, ErrorReason.SECOND_FACTOR_STATE
    assert await refused(factor.confirm(off.user, "123456")) == state
    assert await refused(factor.remove(off.user, "123456")) == state
    assert await refused(factor.renew_recovery_codes(off.user)) == state
    await off.turn_on()
    assert await refused(factor.begin(off.user)) == state
    assert await refused(factor.confirm(off.user, off.code())) == state


async def test_it_is_removed_by_a_code_and_gone_with_its_secrets(on: Authenticator) -> None:
    assert await refused(on.rig.second_factor.remove(on.user, "123")) == ErrorReason.CODE_REFUSED
    assert (await on.rig.user(EMAIL)).second_factor
    await on.rig.second_factor.remove(on.user, on.recovery_codes[3])
    assert not await on.takes(on.code())
    assert not await on.takes(on.recovery_codes[4])
    with psycopg.connect(on.rig.database.admin_url) as connection:
        left = connection.execute("SELECT totp_secret, (SELECT count(*) FROM recovery_codes) FROM users").fetchone()
    assert left == (None, 0)
    await on.turn_on()
    assert await on.takes(on.code())


async def test_what_is_stored_shows_no_secret_and_opens_for_its_owner_only(on: Authenticator) -> None:
    bob = await on.rig.add_user("bob@example.com")
    with psycopg.connect(on.rig.database.admin_url, autocommit=True) as connection:
        sealed, hashes = connection.execute(
            "SELECT totp_secret, (SELECT array_agg(code_hash) FROM recovery_codes) FROM users WHERE totp_enabled"
        ).fetchall()[0]
        assert on.secret.encode() not in sealed
        assert all(code.replace("-", "").encode() not in digest for digest in hashes for code in on.recovery_codes)
        connection.execute(
            "UPDATE users SET totp_secret = %s, totp_enabled = true WHERE user_id = %s", (sealed, bob.user_id)
        )
    with pytest.raises(DecryptionError):
        await on.rig.second_factor.verify(bob, on.code())

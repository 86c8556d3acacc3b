"""Codes that came by mail: eight digits, a quarter of an hour, five tries, one success, and few mails."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import psycopg
import pytest

from exchange.auth.contract import RESET_PASSWORD, VERIFY_EMAIL
from exchange.auth.mail_codes import MAILS_A_DAY, MAX_TRIES
from tests.integration.auth.rig import running_rig

if TYPE_CHECKING:
    from exchange.auth.users import User
    from tests.integration.auth.rig import Rig
    from tests.postgres_fixture import Database

EMAIL = "alice@example.com"
MINUTE = 60


@pytest.fixture
async def alice(rig: Rig) -> User:
    return await rig.add_user(EMAIL)


def last_code(rig: Rig) -> str:
    """What the newest mail shows."""
    mail = rig.recorded.mails[-1]
    assert mail.to == EMAIL
    found = re.findall(r"\b\d{8}\b", mail.text)
    assert len(found) == 1
    return str(found[0])


async def takes(rig: Rig, user: User | None, code: str, purpose: str = VERIFY_EMAIL) -> bool:
    async with rig.store.transaction() as connection:
        return await rig.codes.take(connection, user, purpose, code)


async def test_a_code_is_taken_once_and_for_its_purpose_only(rig: Rig, alice: User) -> None:
    bob = await rig.add_user("bob@example.com")
    await rig.codes.send(alice, VERIFY_EMAIL)
    code = last_code(rig)
    assert not await takes(rig, alice, code, RESET_PASSWORD)
    assert not await takes(rig, bob, code)
    assert not await takes(rig, None, code)
    assert await takes(rig, alice, f" {code}\n"), "as people paste"
    assert not await takes(rig, alice, code)


async def test_a_code_is_old_after_a_quarter_of_an_hour(rig: Rig, alice: User) -> None:
    await rig.codes.send(alice, VERIFY_EMAIL)
    rig.let_pass(15 * MINUTE - 1)
    second = await rig.add_user("bob@example.com")
    await rig.codes.send(second, VERIFY_EMAIL)
    rig.let_pass(2)
    assert not await takes(rig, alice, re.findall(r"\d{8}", rig.recorded.mails[0].text)[0])
    assert await takes(rig, second, re.findall(r"\d{8}", rig.recorded.mails[1].text)[0])


async def test_five_wrong_tries_use_a_code_up_also_all_at_once(rig: Rig, alice: User, database: Database) -> None:
    await rig.codes.send(alice, VERIFY_EMAIL)
    code = last_code(rig)
    wrong = f"{(int(code) + 1) % 10**8:08d}"
    for _ in range(MAX_TRIES - 1):
        assert not await takes(rig, alice, wrong)
    async with running_rig(database) as other:
        # One try is left; of ten at a time, the right one among them, nine come too late.
        tried = await asyncio.gather(*(takes(one, alice, wrong) for one in (rig, other) for _ in range(5)))
    assert not any(tried)
    assert not await takes(rig, alice, code)
    rig.let_pass(MINUTE)
    await rig.codes.send(alice, VERIFY_EMAIL)
    assert await takes(rig, alice, last_code(rig)), "another mail, another code"


async def test_one_mail_a_minute_and_ten_a_day_go_to_an_address(rig: Rig, alice: User) -> None:
    for _ in range(3):
        await rig.codes.send(alice, VERIFY_EMAIL)
    assert len(rig.recorded.mails) == 1
    first = last_code(rig)
    await rig.codes.send(alice, RESET_PASSWORD)
    await rig.codes.tell_owner(alice)
    await rig.codes.tell_owner(alice)
    assert len(rig.recorded.mails) == 3, "one kind does not hold up another"
    assert await takes(rig, alice, first), "nor replace its code"
    rig.recorded.mails.clear()
    for _ in range(2 * MAILS_A_DAY):
        rig.let_pass(MINUTE)
        await rig.codes.send(alice, VERIFY_EMAIL)
    assert len(rig.recorded.mails) == MAILS_A_DAY - 1
    rig.let_pass(86_400)
    await rig.codes.send(alice, VERIFY_EMAIL)
    assert len(rig.recorded.mails) == MAILS_A_DAY


async def test_of_requests_at_the_same_time_one_sends_a_mail(rig: Rig, alice: User, database: Database) -> None:
    async with running_rig(database) as other:
        await asyncio.gather(*(one.codes.send(alice, VERIFY_EMAIL) for one in (rig, other) for _ in range(5)))
        (mail,) = rig.recorded.mails + other.recorded.mails
    assert await takes(rig, alice, re.findall(r"\d{8}", mail.text)[0])


async def test_no_code_is_stored_and_the_owner_is_told_without_one(rig: Rig, alice: User) -> None:
    await rig.codes.send(alice, RESET_PASSWORD)
    code = last_code(rig)
    await rig.codes.tell_owner(alice)
    assert re.findall(r"\d{8}", rig.recorded.mails[-1].text) == []
    assert max(len(line) for mail in rig.recorded.mails for line in mail.text.splitlines()) < 78
    with psycopg.connect(rig.database.admin_url) as connection:
        stored = connection.execute("SELECT c::text, encode(code_hash, 'escape') FROM mail_codes c").fetchall()
    assert len(stored) == 2
    assert code not in repr(stored)

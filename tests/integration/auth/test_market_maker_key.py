"""The market maker's user and key: made once, usable with what lies in the file, and made anew once the key was revoked."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import psycopg
import pytest

from exchange.auth import market_maker_key
from exchange.auth.bootstrap import PasswordNotLeft, leave_secret
from exchange.auth.market_maker_key import EMAIL, KEY_FILE, make_market_maker
from exchange.auth.signatures import SECRET_BYTES
from exchange.auth.standing import Standing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.auth.rig import Rig

pytestmark = pytest.mark.asyncio


async def make(rig: Rig, folder: Path) -> bool:
    parts = rig.parts
    return await make_market_maker(rig.store, parts.passwords, parts.keys, parts.events, folder)


def key_in(folder: Path) -> str:
    found = json.loads((folder / KEY_FILE).read_text())
    assert len(base64.b64decode(found["secret"])) == SECRET_BYTES
    return str(found["api_key"])


async def test_instances_that_start_at_once_make_one_key_between_them(rig: Rig, tmp_path: Path) -> None:
    made = await asyncio.gather(*(make(rig, tmp_path) for _ in range(4)))
    assert sorted(made) == [False] * 3 + [True]
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    key = await rig.parts.keys.get(key_in(tmp_path))
    assert (key.scopes, key.label, key.cancel_orders_on_revoke) == (("read", "trade"), "market-maker", True)
    with psycopg.connect(rig.database.admin_url) as connection:
        users = connection.execute("SELECT email, roles, tier, email_verified FROM users").fetchall()
    assert users == [(EMAIL, ["market_maker", "trader"], "market_maker", True)]


async def test_a_revoked_key_is_replaced_at_the_next_start(rig: Rig, tmp_path: Path) -> None:
    await make(rig, tmp_path)
    first = key_in(tmp_path)
    await rig.parts.keys.revoke(first, reason="leaked", by=Standing.STAFF)
    assert await make(rig, tmp_path)
    second = key_in(tmp_path)
    assert second != first
    assert (await rig.parts.keys.get(second)).account == (await rig.parts.keys.get(first)).account


async def test_a_crash_after_the_file_leaves_a_key_of_nobody_that_is_written_over(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left_then_killed(*arguments: str) -> None:
        leave_secret(tmp_path, *arguments[1:])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(market_maker_key, "leave_secret", left_then_killed)
        with pytest.raises(KeyboardInterrupt):
            await make(rig, tmp_path)
    nobodys = key_in(tmp_path)
    assert await make(rig, tmp_path)
    assert key_in(tmp_path) != nobodys


async def test_without_a_folder_there_is_neither_user_nor_key(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PasswordNotLeft, match=r"the market maker's key cannot be left in .*/file"):
        await make(rig, file)
    with psycopg.connect(rig.database.admin_url) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (0,)

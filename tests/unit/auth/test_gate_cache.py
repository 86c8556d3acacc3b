"""What the gate remembers of keys: never what was revoked, never more than its bound, and nothing for long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from exchange.auth.gate import credentials
from exchange.auth.gate.credentials import MAX_AGE_OF_LOCK_S, MAX_AGE_S, Cache
from exchange.auth.gate.gate import subject_of
from exchange.auth.users import User
from exchange.runtime.clock import ManualClock
from exchange.runtime.errors import ErrorReason, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE, BOB = 100_001, 100_002


@dataclass(frozen=True)
class Held:
    """What a name stands for, as the `version`th look-up found it."""

    user: User
    version: int


def user(user_id: int, *, locked: bool = False) -> User:
    now = datetime.now(UTC)
    return User(
        user_id=user_id,
        email="a@example.com",
        password_hash="",
        email_verified=True,
        roles=("trader",),
        tier="standard",
        generation=1,
        second_factor=False,
        locked_at=now if locked else None,
        locked_until=None,
        lock_reason="",
        lock_scope="all" if locked else "",
        created_at=now,
    )


class Shelf:
    """A cache over a store in memory, whose look-ups can be held up; `news` runs when revocations are asked for."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.users: dict[str, User] = {"a": user(ALICE), "b": user(BOB)}
        self.lookups: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.asked = asyncio.Event()
        self.believable = True
        self.news: Callable[[], None] = lambda: None
        self.fails = False
        self.cache: Cache[Held] = Cache(self._load, self._follow, self.clock)

    async def _load(self, name: str) -> Held | None:
        self.lookups.append(name)
        self.asked.set()
        version = len(self.lookups)
        found = self.users.get(name)
        await self.go.wait()
        if self.fails:
            raise ServiceError(ErrorReason.AUTH_UNAVAILABLE)
        return Held(found, version) if found is not None else None

    def _follow(self) -> bool:
        news, self.news = self.news, lambda: None
        news()
        return self.believable

    async def version(self, name: str) -> int:
        found = await self.cache.get(name)
        assert found is not None
        return found.version

    async def held_up(self, callers: int = 1) -> list[asyncio.Task[Held | None]]:
        """Callers who wait for a look-up of "a" that has begun."""
        self.go.clear()
        waiting = [asyncio.create_task(self.cache.get("a")) for _ in range(callers)]
        await self.asked.wait()
        return waiting


@pytest.fixture
async def shelf() -> Shelf:
    return Shelf()


async def test_what_was_found_is_kept_for_its_time(shelf: Shelf) -> None:
    assert [await shelf.version("a") for _ in range(3)] == [1, 1, 1]
    shelf.clock.advance(MAX_AGE_S)
    assert await shelf.version("a") == 2


async def test_who_is_locked_is_looked_up_again_soon(shelf: Shelf) -> None:
    shelf.users["a"] = user(ALICE, locked=True)
    assert [await shelf.version("a") for _ in range(2)] == [1, 1]
    shelf.clock.advance(MAX_AGE_OF_LOCK_S)
    assert await shelf.version("a") == 2


async def test_made_up_names_take_no_room(shelf: Shelf) -> None:
    assert await shelf.version("a") == 1
    for number in range(3):
        assert await shelf.cache.get(f"made-up-{number}") is None
    assert list(shelf.cache._found) == ["a"]
    assert not shelf.cache._loading


async def test_more_look_ups_at_a_time_than_may_be_are_refused(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "MAX_LOOKING_UP", 1)
    waiting = await shelf.held_up(2)
    with pytest.raises(ServiceError) as refused:
        await shelf.cache.get("b")
    assert refused.value.reason == ErrorReason.OVERLOADED
    shelf.go.set()
    assert await asyncio.gather(*waiting) == [await shelf.cache.get("a")] * 2


async def test_nothing_is_believed_while_revocations_are_not_followed(shelf: Shelf) -> None:
    assert await shelf.version("a") == 1
    shelf.believable = False
    assert await shelf.version("a") == 2
    shelf.believable = True
    assert await shelf.version("a") == 2


async def test_what_is_revoked_is_forgotten_and_nothing_else(shelf: Shelf) -> None:
    await shelf.version("a")
    await shelf.version("b")
    shelf.news = lambda: shelf.cache.forget("a")
    assert await shelf.version("a") == 3
    assert await shelf.version("b") == 2
    shelf.news = lambda: shelf.cache.forget_user(str(BOB))
    assert await shelf.version("a") == 3
    assert await shelf.version("b") == 4
    shelf.news = shelf.cache.clear
    assert (await shelf.version("a"), await shelf.version("b")) == (5, 6)


@pytest.mark.parametrize("how", ["name", "user", "all"])
async def test_what_is_revoked_while_it_is_looked_up_is_looked_up_again(shelf: Shelf, how: str) -> None:
    (waiting,) = await shelf.held_up()
    revoke = {
        "name": lambda: shelf.cache.forget("a"),
        "user": lambda: shelf.cache.forget_user(str(ALICE)),
        "all": shelf.cache.clear,
    }
    # It comes to light only when the look-up has read the old state and is about to be kept.
    shelf.news = revoke[how]
    shelf.go.set()
    found = await waiting
    assert found is not None
    assert found.version == 2
    assert await shelf.version("a") == 2


async def test_callers_at_a_time_share_a_look_up(shelf: Shelf) -> None:
    waiting = await shelf.held_up(3)
    waiting[0].cancel()
    await asyncio.sleep(0)
    shelf.go.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert [one.version for one in found[1:] if isinstance(one, Held)] == [1, 1]
    assert shelf.lookups == ["a"]


async def test_a_failed_look_up_is_told_to_all_and_tried_again(shelf: Shelf) -> None:
    shelf.fails = True
    waiting = await shelf.held_up(2)
    shelf.go.set()
    for one in waiting:
        with pytest.raises(ServiceError):
            await one
    shelf.fails = False
    assert await shelf.version("a") == 2


async def test_the_least_recently_used_goes_first(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "MAX_CACHED", 2)
    shelf.users["c"] = user(BOB)
    for name in ("a", "b", "a", "c"):
        await shelf.cache.get(name)
    assert shelf.lookups == ["a", "b", "c"]
    await shelf.cache.get("a")
    assert shelf.lookups == ["a", "b", "c"]
    await shelf.cache.get("b")
    assert shelf.lookups == ["a", "b", "c", "b"]


NAME = "spiffe://pincex/client/desk-1"


@pytest.mark.parametrize(
    ("forwarded", "subject"),
    [
        (f"URI={NAME}", NAME),
        (f'Hash=ab;Subject="CN=x,O=y";URI={NAME};DNS=z', NAME),
        (f'By=spiffe://pincex/edge;Hash=ab;URI="{NAME}"', NAME),
        # What came from further out stands before it.
        (f"URI=spiffe://pincex/client/forged,URI={NAME}", NAME),
        (f"URI={NAME},Hash=ab", ""),
        (f"By={NAME}", ""),
        (f"XURI={NAME}", ""),
        (f"URI={NAME};URI={NAME}x", ""),
        # Whoever asks for a certificate chooses its subject.
        (f'Subject="CN=x;URI={NAME}"', ""),
        (f'Subject="CN=x,O=y;URI={NAME}"', ""),
        (f'Subject="CN=\\";URI={NAME};O=\\""', ""),
        (f'Subject="CN=\\",URI={NAME}";URI=spiffe://pincex/client/own', "spiffe://pincex/client/own"),
        (f'Subject="CN=x";URI={NAME}"', ""),
        (f'Subject="CN=x;URI={NAME}', ""),
        (f"URI={NAME};", ""),
        ("URI=", ""),
        ("", ""),
    ],
)
def test_the_subject_is_the_one_uri_of_the_last_connection(forwarded: str, subject: str) -> None:
    assert subject_of(forwarded) == subject

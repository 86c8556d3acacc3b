"""A process that is killed between any two statements or calls: everything that the wallet touches burns a fuse.

`Fuse.lit(n)` lets n points pass and raises `Killed` at the next; points lie before and after each statement, each commit, and each
call to the engine, the ledger and the network. `Killed` is no Exception: nothing in the wallet may catch it, as nothing catches
SIGKILL. What was committed or called before stays, what was not is rolled back.
"""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from exchange.runtime.database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_STATEMENTS = frozenset({"execute", "executemany", "fetch", "fetchrow", "fetchval"})


class Killed(BaseException):
    """The process is gone."""


class Fuse:
    """Counts points. Out, it counts for ever."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.burnt = False

    def lit(self, points: int) -> None:
        """Let so many points pass."""
        self.left, self.burnt = points, False

    def out(self) -> None:
        """Nothing is killed any more."""
        self.left = None

    def burn(self) -> None:
        """A point."""
        if self.left is None:
            return
        if self.left == 0:
            self.burnt = True
            raise Killed
        self.left -= 1


class Fused:
    """Stands before anything with async methods: a point before and after each call."""

    def __init__(self, inner: Any, fuse: Fuse, only: frozenset[str] | None = None) -> None:
        self._inner = inner
        self._fuse = fuse
        self._only = only

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found) and (self._only is None or name not in self._only):
            return found

        async def call(*values: Any, **named: Any) -> Any:
            self._fuse.burn()
            answer = await found(*values, **named)
            self._fuse.burn()
            return answer

        return call


class FusedDatabase(Database):
    """A pool whose statements and commits are points."""

    def __init__(self, url: str, fuse: Fuse) -> None:
        super().__init__(url, "under-test")
        self._fuse = fuse

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        async with super().connection() as connection:
            yield Fused(connection, self._fuse, _STATEMENTS)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with super().connection() as connection, connection.transaction():
            yield Fused(connection, self._fuse, _STATEMENTS)
        # After the commit, before whoever made it knows.
        self._fuse.burn()

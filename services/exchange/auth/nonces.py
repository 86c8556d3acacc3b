"""No signed request counts twice: the nonces of those that were taken, in a table that all instances share.

Whatever waits is inserted by one statement, so the cost of a round trip is shared. The table is not written ahead to disk:
if PostgreSQL crashes, or a standby takes over, it is empty, and so is `request_nonce_epoch` beside it. The first instance
that sees it empty writes from when on timestamps count again: beyond any that was taken before. Until then, one window,
signed requests are refused, but for keys that are younger than the epoch: nothing of theirs can be replayed.

All instances have the same window, and their clocks and PostgreSQL's agree to well within it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Final

import structlog

from exchange.auth.store import Store
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError

MAX_BATCH: Final = 1_000
# What waits beyond this is refused: at a hundredth of a second a batch it is a tenth of a second's wait.
MAX_WAITING: Final = 10_000
# One generation of the nonces that this process remembers; more than can wait, so that no batch has one twice.
MAX_REMEMBERED: Final = 50_000
# A statement that takes longer was not answered in time, whatever becomes of it.
STATEMENT_TIMEOUT_S: Final = 2.0
# Nonces outlive their timestamps by more than a request can wait here and clocks can differ.
PURGE_MARGIN_MS: Final = 60_000
PURGE_EVERY_S: Final = 10.0

# In one order, so that two instances with the same nonces wait for each other and do not lock each other up.
_INSERT: Final = """
WITH taken AS (
    INSERT INTO request_nonces (api_key, nonce, signed_ms)
    SELECT api_key, nonce, signed_ms
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given (api_key, nonce, signed_ms)
    ORDER BY api_key, nonce
    ON CONFLICT DO NOTHING
    RETURNING api_key, nonce
)
SELECT api_key, nonce, (SELECT since_ms FROM request_nonce_epoch) AS since_ms FROM taken
"""
_BEGIN_EPOCH: Final = """
INSERT INTO request_nonce_epoch (since_ms)
VALUES (greatest($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) + $2::bigint)
ON CONFLICT DO NOTHING
"""


_log: structlog.typing.FilteringBoundLogger = structlog.get_logger("nonces")


class Verdict(Enum):
    """What becomes of a request whose signature is right."""

    TAKEN = "taken"
    REUSED = "reused"
    BEFORE_EPOCH = "before epoch"


@dataclass(slots=True)
class _Waiting:
    """A nonce on its way into the table; `settled` gets None where another request took it, else the epoch."""

    api_key: str
    nonce: str
    signed_ms: int
    settled: asyncio.Future[int | None]


class Nonces:
    """Takes each nonce once. `store` is its own: it must not wait behind log-ins."""

    def __init__(self, store: Store, clock: Clock, *, window_ms: int) -> None:
        self._store = store
        self._clock = clock
        self._window_ms = window_ms
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self._recent: set[tuple[str, str]] = set()
        self._older: set[tuple[str, str]] = set()
        self._turn_at = clock.monotonic() + self._life_s

    @property
    def _life_s(self) -> float:
        # A timestamp that lies a window ahead is taken for two windows from now.
        return 2 * self._window_ms / 1_000

    async def take(self, api_key: str, nonce: str, *, signed_ms: int, key_created_ms: int) -> Verdict:
        """Use the nonce up. Raises ServiceError AUTH_UNAVAILABLE while it cannot be stored, OVERLOADED."""
        front = (api_key, nonce)
        self._turn()
        if front in self._recent or front in self._older:
            return Verdict.REUSED
        if len(self._waiting) >= MAX_WAITING:
            raise ServiceError(ErrorReason.OVERLOADED, metadata={"limit": MAX_WAITING})
        self._recent.add(front)
        settled: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(api_key, nonce, signed_ms, settled))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        try:
            since_ms = await settled
        except ServiceError:
            # It was not taken: the same request may come again.
            self._recent.discard(front)
            self._older.discard(front)
            raise
        if since_ms is None:
            return Verdict.REUSED
        if signed_ms < since_ms and key_created_ms < since_ms - self._window_ms:
            return Verdict.BEFORE_EPOCH
        return Verdict.TAKEN

    async def begin(self) -> int:
        """Begin an epoch where none stands, and return from when on timestamps count. Raises ServiceError AUTH_UNAVAILABLE."""
        async with self._store.connection() as connection:
            await connection.execute(_BEGIN_EPOCH, self._now_ms(), self._window_ms, timeout=STATEMENT_TIMEOUT_S)
            since_ms = await connection.fetchval(
                "SELECT since_ms FROM request_nonce_epoch", timeout=STATEMENT_TIMEOUT_S
            )
        if since_ms is None:
            # It crashed again in between.
            raise ServiceError(ErrorReason.AUTH_UNAVAILABLE)
        return int(since_ms)

    async def purge(self) -> int:
        """Delete the nonces whose timestamps are refused anyway, and return how many. Raises as `begin`."""
        oldest = self._now_ms() - self._window_ms - PURGE_MARGIN_MS
        async with self._store.connection() as connection:
            tag = await connection.execute("DELETE FROM request_nonces WHERE signed_ms < $1", oldest)
        return int(tag.split()[-1])

    async def stop(self) -> None:
        """Let what waits be settled."""
        if self._writer is not None:
            await self._writer

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            try:
                taken, since_ms = await self._insert(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is: nobody waits for ever, and nothing is let in
                if not isinstance(error, ServiceError):
                    _log.error("nonces could not be stored", exc_info=error)
                for one in batch:
                    if not one.settled.done():
                        one.settled.set_exception(ServiceError(ErrorReason.AUTH_UNAVAILABLE))
                continue
            for one in batch:
                if not one.settled.done():
                    one.settled.set_result(since_ms if (one.api_key, one.nonce) in taken else None)
        self._writer = None

    async def _insert(self, batch: list[_Waiting]) -> tuple[set[tuple[str, str]], int]:
        """Return those that nobody had taken, and the epoch that the table had then."""
        async with self._store.connection() as connection:
            rows = await connection.fetch(
                _INSERT,
                [one.api_key for one in batch],
                [one.nonce for one in batch],
                [one.signed_ms for one in batch],
                timeout=STATEMENT_TIMEOUT_S,
            )
        if not rows:
            return set(), 0
        since_ms = rows[0]["since_ms"]
        return {(row["api_key"], row["nonce"]) for row in rows}, await self.begin() if since_ms is None else since_ms

    def _turn(self) -> None:
        """Forget the older generation, once all of it is too old to be taken or memory is used up."""
        now = self._clock.monotonic()
        if now >= self._turn_at or len(self._recent) >= MAX_REMEMBERED:
            self._older, self._recent = self._recent, set()
            self._turn_at = now + self._life_s

    def _now_ms(self) -> int:
        return self._clock.time_ns() // 1_000_000

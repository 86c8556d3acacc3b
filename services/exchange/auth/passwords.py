"""Passwords: argon2id (RFC 9106), beside the event loop, with the same work whether or not a user exists."""

from __future__ import annotations

import asyncio
import os
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import argon2
from argon2.exceptions import VerifyMismatchError

from exchange.auth.config import Argon2Parameters
from exchange.auth.metrics import AuthMetrics
from exchange.runtime.errors import ErrorReason, ServiceError

# Each run keeps a core and `memory_kib` busy for tens of milliseconds.
MAX_THREADS: Final = 4
# Runs that may wait for a thread; at 30 ms each a client waits a few seconds at most. More are refused.
MAX_WAITING: Final = 64
# Far above what the policy lets in, so that nobody has megabytes hashed.
MAX_GIVEN: Final = 1_024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it is the password, and whether its hash was made with other parameters than today's."""

    right: bool
    outdated: bool


class Passwords:
    """Hashes and checks; one a process. Runs are counted in `metrics.argon2`."""

    def __init__(self, parameters: Argon2Parameters, metrics: AuthMetrics) -> None:
        self._hasher = argon2.PasswordHasher(
            time_cost=parameters.iterations,
            memory_cost=parameters.memory_kib,
            parallelism=parameters.parallelism,
            type=argon2.Type.ID,
        )
        self._threads = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="argon2")
        self._verified = metrics.argon2.labels("verify")
        self._hashed = metrics.argon2.labels("hash")
        self._running = 0
        # What the password of a user that does not exist is compared with; nobody knows what it is the hash of.
        self._nobody = self._hasher.hash(secrets.token_hex(32))

    def close(self) -> None:
        """End the threads, after what runs in them."""
        self._threads.shutdown(cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Return what is stored. Raises ServiceError OVERLOADED."""
        self._hashed.inc()
        return await self._run(lambda: self._hasher.hash(_normal(password)))

    async def verify(self, stored: str | None, password: str) -> Verdict:
        """Compare with what is stored; with None, for a user that does not exist, work as long and say no.

        Raises ServiceError OVERLOADED.
        """
        self._verified.inc()
        known = stored is not None
        against = stored if stored is not None else self._nobody

        def compare() -> bool:
            try:
                return self._hasher.verify(against, _normal(password))
            except VerifyMismatchError:
                return False

        matches = await self._run(compare)
        return Verdict(right=known and matches, outdated=known and self._hasher.check_needs_rehash(against))

    async def _run(self, work: Callable[[], T]) -> T:
        if self._running >= MAX_WAITING:
            raise ServiceError(ErrorReason.OVERLOADED, metadata={"limit": MAX_WAITING})
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._running -= 1


def _normal(password: str) -> str:
    """One form for what looks the same, however the keyboard composed it (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)

"""Slows guessing down and locks log-ins, by the name that is tried and by the address that tries.

The truth is `failed_login_attempts`: what is blocked, and until when, follows from its rows and nothing else, so a restart,
another instance or an empty Valkey changes nothing. Valkey only remembers for a moment that PostgreSQL said no.

A guess is a row before it is looked at (`admit`), under a lock of its name and one of its address, and counts as a failure
until it is decided. What is refused makes no row: nobody can prolong a lock by going on, or fill the table.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from exchange.auth.contract import LOGIN_NAME, Attempt
from exchange.auth.encryption import Keyring
from exchange.auth.events import Events
from exchange.auth.metrics import AuthMetrics
from exchange.auth.store import Connection, Store
from exchange.auth.throttle_policy import ThrottlePolicy
from exchange.auth.users import LOCK_LOGIN
from exchange.runtime.audit.contract import LOGIN_THROTTLED
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.quick_cache import QuickCache

LOCK_REASON: Final = "failed attempts"
ACCOUNT_LOCKED: Final = "account.locked"
UNDECIDED: Final = "not finished"
KEEP_ATTEMPTS: Final = timedelta(days=30)
PURGE_ROWS: Final = 5_000
PURGE_INTERVAL_S: Final = 3_600
QUICK_NO_MS: Final = 5_000
"""For how long Valkey may say no without PostgreSQL being asked again, at most."""

# Two kinds of advisory locks, always taken in this order.
_LOCK_NAME: Final = 0x50_43_4E
_LOCK_ADDRESS: Final = 0x50_43_41
# Whoever has one address of IPv6 has the whole network of this size.
_IPV6_NETWORK: Final = 64

_COUNT: Final = """
WITH recent AS MATERIALIZED (
    SELECT attempt_time FROM failed_login_attempts
    WHERE {whose} AND attempt_time > clock_timestamp() - $1::interval - $2::interval
), last AS (SELECT max(attempt_time) AS newest FROM recent)
SELECT newest, clock_timestamp() AS now,
    (SELECT count(*) FROM recent WHERE attempt_time > newest - $1::interval) AS at_newest,
    (SELECT count(*) FROM recent WHERE attempt_time > clock_timestamp() - $1::interval) AS running
FROM last
"""
_COUNT_NAME: Final = _COUNT.format(whose="name_hash = $3 AND NOT forgiven")
_COUNT_ADDRESS: Final = _COUNT.format(whose="ip_address BETWEEN $3::inet AND $4::inet")


@dataclass(frozen=True, slots=True)
class _Count:
    """Failures of a name or an address: when the newest was, how many lay in the window then, how many lie in it now."""

    now: datetime
    newest: datetime | None
    at_newest: int
    running: int

    def blocked_s(self, wait_s: Callable[[int], float]) -> float:
        """Seconds that are left to wait; 0 where there is nothing to wait for."""
        if self.newest is None:
            return 0.0
        return max(0.0, wait_s(self.at_newest) - (self.now - self.newest).total_seconds())


class LoginThrottle:
    """The Throttle of the contract. One a process; any number of processes share the database."""

    def __init__(
        self,
        store: Store,
        cache: QuickCache,
        keyring: Keyring,
        *,
        policy: ThrottlePolicy,
        events: Events,
        metrics: AuthMetrics,
        clock: Clock,
    ) -> None:
        self._store = store
        self._cache = cache
        self._hash = keyring.keyed_hash(LOGIN_NAME)
        self._policy = policy
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._recording: set[asyncio.Task[None]] = set()
        self._look_back = timedelta(seconds=max(policy.lock_s, policy.max_delay_s))
        self._window = timedelta(seconds=policy.window_s)

    async def admit(self, email: str, address: str) -> Attempt:
        """See the contract. A name that nobody has counts like any other."""
        name_hash = self._hash.digest(email)
        address = normal_address(address)
        lowest, highest = network_of(address)
        name_key, address_key = _key("n", name_hash.hex()), _key("a", lowest)
        await self._ask_quickly(address, name_key, address_key)
        async with self._store.transaction() as connection:
            await _hold_name(connection, name_hash)
            await connection.execute(
                "SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCK_ADDRESS, f"{lowest}-{highest}"
            )
            name = await self._count(connection, _COUNT_NAME, name_hash)
            tried_from = await self._count(connection, _COUNT_ADDRESS, lowest, highest)
            name_s = name.blocked_s(self._policy.name_wait_s)
            address_s = tried_from.blocked_s(self._policy.address_wait_s)
            if not name_s and not address_s:
                attempt_id = await connection.fetchval(
                    "INSERT INTO failed_login_attempts (ip_address, reason, name_hash) VALUES ($1::inet, $2, $3) "
                    "RETURNING attempt_id",
                    address,
                    UNDECIDED,
                    name_hash,
                )
                return Attempt(attempt_id, name_hash, address, name.running + 1)
        await self._remember_no(name_key, name_s)
        await self._remember_no(address_key, address_s)
        raise self._refusal(address, "name" if name_s else "address", max(name_s, address_s))

    async def failed(self, attempt: Attempt, user_id: int | None, reason: str) -> None:
        """See the contract."""
        locks = attempt.number >= self._policy.name_limit
        locked = False
        async with self._store.transaction() as connection:
            # The user's row first, as everywhere.
            if locks:
                locked = await self._lock(connection, attempt, user_id)
            await connection.execute(
                "UPDATE failed_login_attempts SET user_id = $2, reason = $3 WHERE attempt_id = $1",
                attempt.attempt_id,
                user_id,
                reason,
            )
        if locks:
            self._metrics.login_locks.inc()
        if locked and user_id is not None:
            self._record_lock(attempt, user_id)

    async def succeeded(self, attempt: Attempt) -> None:
        """See the contract."""
        async with self._store.transaction() as connection:
            await self.forgive(connection, attempt.name_hash)
            await self._take_back(connection, attempt)
        if attempt.number > self._policy.free_attempts:
            await self.opened(attempt.name_hash)

    async def withdrawn(self, attempt: Attempt) -> None:
        """See the contract."""
        async with self._store.connection() as connection:
            await self._take_back(connection, attempt)

    def name_hash(self, email: str) -> bytes:
        """By which the attempts of a normal address are counted."""
        return self._hash.digest(email)

    async def forgive(self, connection: Connection, name_hash: bytes) -> None:
        """Count the failures of a name no more, in the transaction of what forgives them; then call `opened`."""
        # Held, since two that forgive the same rows could each wait for one that the other has.
        await _hold_name(connection, name_hash)
        await connection.execute(
            "UPDATE failed_login_attempts SET forgiven = true WHERE name_hash = $1 AND NOT forgiven", name_hash
        )

    async def failures(self, connection: Connection, emails: Sequence[str]) -> list[int]:
        """How many failures count against each of the names, decided or not."""
        hashes = [self._hash.digest(email) for email in emails]
        rows = await connection.fetch(
            "SELECT name_hash, count(*) AS failures FROM failed_login_attempts "
            "WHERE name_hash = ANY($1::bytea[]) AND NOT forgiven GROUP BY name_hash",
            hashes,
        )
        found = {row["name_hash"]: row["failures"] for row in rows}
        return [found.get(name_hash, 0) for name_hash in hashes]

    async def opened(self, name_hash: bytes) -> None:
        """Have Valkey forget that the name is blocked, also where another instance is just about to tell it so."""
        await self._cache.put(_key("n", name_hash.hex()), "0", live_ms=QUICK_NO_MS)

    async def purge(self) -> int:
        """Remove the oldest attempts that are kept no longer, PURGE_ROWS at most; return how many went."""
        async with self._store.connection() as connection:
            gone: str = await connection.execute(
                "DELETE FROM failed_login_attempts WHERE attempt_id IN (SELECT attempt_id FROM failed_login_attempts "
                "WHERE attempt_time < clock_timestamp() - $1::interval ORDER BY attempt_time LIMIT $2 "
                # Whoever forgives them at the same time is not waited for.
                "FOR UPDATE SKIP LOCKED)",
                KEEP_ATTEMPTS,
                PURGE_ROWS,
            )
        return int(gone.rpartition(" ")[2])

    async def run(self) -> None:
        """Purge every hour, for ever."""
        while True:
            # The database is away: the next hour is as good.
            with contextlib.suppress(ServiceError):
                while await self.purge() == PURGE_ROWS:
                    pass
            await asyncio.sleep(PURGE_INTERVAL_S)

    async def close(self) -> None:
        """Wait for what is being recorded."""
        await asyncio.gather(*self._recording, return_exceptions=True)

    async def _count(self, connection: Connection, query: str, *whose: object) -> _Count:
        row = await connection.fetchrow(query, self._window, self._look_back, *whose)
        assert row is not None
        return _Count(row["now"], row["newest"], row["at_newest"], row["running"])

    async def _take_back(self, connection: Connection, attempt: Attempt) -> None:
        await connection.execute("DELETE FROM failed_login_attempts WHERE attempt_id = $1", attempt.attempt_id)

    async def _lock(self, connection: Connection, attempt: Attempt, user_id: int | None) -> bool:
        """Show the lock in the user's row; False where there is no user, or an operator locked or unlocked meanwhile."""
        done: str = await connection.execute(
            "UPDATE users SET locked_at = a.attempt_time, locked_until = a.attempt_time + $3::interval, "
            "lock_reason = $4, lock_scope = $5 FROM failed_login_attempts a "
            "WHERE users.user_id = $1 AND a.attempt_id = $2 AND NOT a.forgiven AND (users.locked_at IS NULL "
            "OR users.lock_scope = $5 OR users.locked_until <= clock_timestamp())",
            user_id,
            attempt.attempt_id,
            timedelta(seconds=self._policy.lock_s),
            LOCK_REASON,
            LOCK_LOGIN,
        )
        return done != "UPDATE 0"

    def _record_lock(self, attempt: Attempt, user_id: int) -> None:
        """In the background: the answer takes no longer than that for a name that nobody has."""
        details = {"failed_attempts": str(attempt.number), "scope": LOCK_LOGIN}
        recorded = self._events.happened(ACCOUNT_LOCKED, user_id=user_id, address=attempt.address, details=details)
        task = asyncio.create_task(recorded)
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _ask_quickly(self, address: str, name_key: str, address_key: str) -> None:
        """Refuse what Valkey knows to be blocked. Raises ServiceError TOO_MANY_ATTEMPTS."""
        now_ms = self._clock.time_ns() // 1_000_000
        for by, until in zip(("name", "address"), await self._cache.find((name_key, address_key)), strict=True):
            # Whatever else stands there is not ours.
            if until is not None and until.isascii() and until.isdigit() and len(until) < 16 and int(until) > now_ms:
                raise self._refusal(address, by, min((int(until) - now_ms) / 1000, self._look_back.total_seconds()))

    async def _remember_no(self, key: str, wait_s: float) -> None:
        if wait_s:
            wait_ms = math.ceil(wait_s * 1000)
            until_ms = self._clock.time_ns() // 1_000_000 + wait_ms
            await self._cache.put(key, str(until_ms), live_ms=min(wait_ms, QUICK_NO_MS), only_new=True)

    def _refusal(self, address: str, by: str, wait_s: float) -> ServiceError:
        """What a caller gets; the log of it names the address only: whose name it is was not looked up."""
        refusal = ServiceError(ErrorReason.TOO_MANY_ATTEMPTS, retry_after_seconds=float(max(1, math.ceil(wait_s))))
        self._metrics.attempts_refused.labels(by).inc()
        self._events.note(
            LOGIN_THROTTLED, user_id=None, address=address, outcome=refusal.reason_name, details=f"by {by}"
        )
        return refusal


def normal_address(text: str) -> str:
    """An address in its one form: without zone, one of IPv4 not as one of IPv6. Raises ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(address if mapped is None else mapped)


def network_of(address: str) -> tuple[str, str]:
    """First and last address of whoever has a normal address: itself, or its /64 of IPv6. Raises ValueError."""
    parsed = ipaddress.ip_address(address)
    network = ipaddress.ip_network(
        (parsed, parsed.max_prefixlen if parsed.version == 4 else _IPV6_NETWORK), strict=False
    )
    return str(network[0]), str(network[-1])


def _key(kind: str, what: str) -> str:
    return f"pincex:auth:wait:{kind}:{what}"


async def _hold_name(connection: Connection, name_hash: bytes) -> None:
    """Until the transaction ends, nobody else admits or forgives attempts of this name."""
    number = int.from_bytes(name_hash[:4], "big", signed=True)
    await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", _LOCK_NAME, number)

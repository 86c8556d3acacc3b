"""The auth service without its ports, on a real database: argon2 is made cheap, and time is moved in SQL."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from prometheus_client import CollectorRegistry

from exchange.auth.config import Config
from exchange.auth.contract import Caller, Mail
from exchange.auth.encryption import Keyring
from exchange.auth.login import Credentials
from exchange.auth.mail_codes import StoredMailCodes
from exchange.auth.parts import Parts
from exchange.auth.sessions import Opened
from exchange.auth.store import Store
from exchange.auth.users import User, by_email
from exchange.runtime.clock import Clock, SystemClock
from exchange.runtime.config import Environment, Secret
from exchange.runtime.quick_cache import QuickCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from exchange.runtime.audit.contract import AuditEntry, SecurityEvent
    from tests.postgres_fixture import Database

PASSWORD = "correct horse battery staple"
HERE = "198.51.100.7"
_TIMES = {
    "failed_login_attempts": ("attempt_time",),
    "users": ("locked_at", "locked_until"),
    "mail_codes": ("created_at", "expires_at", "day_start"),
}


@dataclass
class Recorded:
    """Stands in for audit trail, security log and post office, and keeps what they were given."""

    entries: list[AuditEntry] = field(default_factory=list)
    events: list[SecurityEvent] = field(default_factory=list)
    mails: list[Mail] = field(default_factory=list)

    async def begun(self, entry: AuditEntry) -> None:
        raise AssertionError(entry)

    async def ended(self, entry: AuditEntry, outcome: str) -> None:
        raise AssertionError((entry, outcome))

    async def happened(self, entry: AuditEntry, outcome: str = "OK") -> None:
        self.entries.append(entry)

    def note(self, event: SecurityEvent) -> None:
        self.events.append(event)

    async def send(self, mail: Mail) -> None:
        self.mails.append(mail)


class Rig:
    """One instance; several over one database share what it knows."""

    def __init__(
        self, config: Config, database: Database, store: Store, clock: Clock, recorded: Recorded, cache: QuickCache
    ) -> None:
        self.database, self.store, self.clock, self.recorded, self.cache = database, store, clock, recorded, cache
        self.parts = parts = Parts(
            config, store, cache, CollectorRegistry(), trail=recorded, security=recorded, clock=clock
        )
        self.metrics, self.throttle, self.second_factor = parts.metrics, parts.throttle, parts.second_factor
        self.sessions, self.keys, self.admin = parts.sessions, parts.keys, parts.user_admin
        self.codes = StoredMailCodes(store, Keyring(config.secret), recorded)

    async def add_user(self, email: str, *, verified: bool = True, roles: tuple[str, ...] = ("trader",)) -> User:
        """A user whose password is PASSWORD."""
        password_hash = await self.parts.passwords.hash(PASSWORD)
        async with self.store.connection() as connection:
            await connection.execute(
                "INSERT INTO users (email, password_hash, email_verified, roles) VALUES ($1, $2, $3, $4)",
                email,
                password_hash,
                verified,
                list(roles),
            )
        return await self.user(email)

    async def user(self, email: str) -> User:
        """The user as it is stored now."""
        async with self.store.connection() as connection:
            found = await by_email(connection, email)
        assert found is not None
        return found

    async def log_in(self, email: str, password: str = PASSWORD, *, code: str = "", address: str = HERE) -> Opened:
        return await self.parts.login.open(Credentials(email, password, code), Caller(address, "test"))

    def attempts(self) -> list[tuple[int | None, str, str]]:
        """User, address and reason of all attempts on record, the oldest first."""
        with psycopg.connect(self.database.admin_url) as connection:
            return connection.execute(
                "SELECT user_id, host(ip_address), reason FROM failed_login_attempts ORDER BY attempt_id"
            ).fetchall()

    def let_pass(self, seconds: float) -> None:
        """Time passes for what the database knows of attempts, locks and mails."""
        with psycopg.connect(self.database.admin_url, autocommit=True) as connection:
            for table, columns in _TIMES.items():
                moved = ", ".join(f"{name} = {name} - make_interval(secs => %(seconds)s)" for name in columns)
                connection.execute(f"UPDATE {table} SET {moved}", {"seconds": seconds})


@asynccontextmanager
async def running_rig(
    database: Database, valkey_url: Secret | None = None, *, clock: Clock | None = None
) -> AsyncIterator[Rig]:
    """Wired as the process is."""
    config = Config.read(
        Environment(
            {
                "PINCEX_AUTH_DATABASE_URL": database.auth_url,
                "PINCEX_AUTH_SECRET": "a secret of thirty-two characters and more",
                "JWT_SECRET": "another secret of thirty-two characters",
                "PINCEX_ARGON2_MEMORY_KIB": "64",
                "PINCEX_ARGON2_ITERATIONS": "1",
            }
        )
    )
    store = await Store.open(database.auth_url)
    cache = QuickCache(valkey_url)
    rig = Rig(config, database, store, clock or SystemClock(), Recorded(), cache)
    await rig.parts.signing_keys.refresh()
    try:
        yield rig
    finally:
        await rig.parts.close(0.0)
        await cache.close()
        await store.close()

"""Log-in sessions and their refresh tokens.

A refresh token gives new tokens once. It is stored as a keyed hash; its successor is stored too, encrypted, until it is
used, so that a client whose answer was lost may ask again. Every change of a session holds its row.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from exchange.auth import revocations, users
from exchange.auth.contract import Caller
from exchange.auth.encryption import Keyring
from exchange.auth.events import REFRESH_REUSED, Events
from exchange.auth.instants import unix_seconds, utc
from exchange.auth.metrics import AuthMetrics
from exchange.auth.store import Connection, Row, Store
from exchange.auth.tokens import AccessToken, Grant, TokenMaker, scopes_of
from exchange.auth.users import User
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError

# A repeat within this, from the same address and before the successor was used, is taken for a lost answer.
LOST_ANSWER_S: Final = 10
# Beyond, the oldest one of the user ends.
MAX_SESSIONS: Final = 50
# Sessions that ended are kept for the runbooks' questions about the past, then they go.
KEPT_FOR: Final = timedelta(days=90)
MAX_REFRESH_TOKEN: Final = 128
_PURPOSE: Final = "refresh-token"

_COLUMNS: Final = (
    "session_id, user_id, ip_address, user_agent, account, scopes, created_at, refreshed_at, expires_at, ended_at"
)


@dataclass(frozen=True, slots=True)
class Session:
    """A row of `user_sessions`. `scopes` empty: all that its user may do at the time."""

    session_id: str
    user_id: int
    address: str
    user_agent: str
    account: str
    scopes: tuple[str, ...]
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, row: Row) -> Session:
        """From a row with at least the columns of this class."""
        return cls(
            session_id=row["session_id"],
            user_id=row["user_id"],
            address=str(row["ip_address"]),
            user_agent=row["user_agent"],
            account=row["account"],
            scopes=tuple(row["scopes"]),
            created_at=row["created_at"],
            refreshed_at=row["refreshed_at"],
            expires_at=row["expires_at"],
            ended_at=row["ended_at"],
        )

    def scopes_for(self, user: User) -> tuple[str, ...]:
        """What its tokens may do now: what was asked for, as far as the user still may."""
        allowed = scopes_of(user)
        return tuple(scope for scope in allowed if not self.scopes or scope in self.scopes)


@dataclass(frozen=True, slots=True)
class Opened:
    """A session with new tokens for it."""

    session: Session
    scopes: tuple[str, ...]
    access: AccessToken
    refresh_token: str


class Sessions:
    """Opens, refreshes and ends sessions. Database failures are ServiceError AUTH_UNAVAILABLE everywhere."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        clock: Clock,
        tokens: TokenMaker,
        events: Events,
        metrics: AuthMetrics,
        *,
        lifetime_s: int,
    ) -> None:
        self._store = store
        self._hash = keyring.keyed_hash(_PURPOSE)
        self._box = keyring.box(_PURPOSE)
        self._clock = clock
        self._tokens = tokens
        self._events = events
        self._metrics = metrics
        self._lifetime = timedelta(seconds=lifetime_s)

    async def open(
        self, verified: User, account: str, scopes: tuple[str, ...], caller: Caller, *, new_hash: str | None = None
    ) -> Opened:
        """Open a session of a user whose password (and code) was right just now.

        `new_hash` replaces the password's hash, made with other parameters than today's. The user is read again under
        its lock: raises ServiceError CREDENTIALS_REFUSED where the password was changed meanwhile, ACCOUNT_LOCKED.
        """
        now = utc(self._clock)
        refresh_token = _new_refresh_token()
        async with self._store.transaction() as connection:
            user = await users.by_id(connection, verified.user_id, lock=True)
            if user.password_hash != verified.password_hash:
                raise ServiceError(ErrorReason.CREDENTIALS_REFUSED)
            if user.is_locked(now):
                raise ServiceError(ErrorReason.ACCOUNT_LOCKED)
            if new_hash is not None:
                await users.set_password_hash(connection, user.user_id, new_hash)
            row = await connection.fetchrow(
                "INSERT INTO user_sessions (session_id, user_id, ip_address, user_agent, account, scopes, created_at, "  # noqa: S608 - a constant
                f"refreshed_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8) RETURNING {_COLUMNS}",
                f"ses_{secrets.token_hex(16)}",
                user.user_id,
                _inet(caller.address),
                caller.user_agent,
                account,
                list(scopes),
                now,
                now + self._lifetime,
            )
            assert row is not None
            session = Session.of(row)
            await self._add_token(connection, session, refresh_token, now)
            await self._end_surplus(connection, user.user_id, now)
        return self._opened(session, user, refresh_token)

    async def refresh(self, refresh_token: str, caller: Caller) -> Opened:
        """New tokens for an unused refresh token.

        Raises ServiceError TOKEN_REFUSED for what is none, TOKEN_EXPIRED, ACCOUNT_LOCKED, and CREDENTIAL_REVOKED where the
        session has ended, by this second use perhaps.
        """
        try:
            opened, outcome = await self._refresh(refresh_token, caller)
        except ServiceError:
            self._metrics.refreshes.labels("refused").inc()
            raise
        self._metrics.refreshes.labels(outcome).inc()
        if isinstance(opened, Session):
            details = {"session_id": opened.session_id}
            await self._events.happened(REFRESH_REUSED, user_id=opened.user_id, address=caller.address, details=details)
            raise ServiceError(ErrorReason.CREDENTIAL_REVOKED)
        return opened

    async def _refresh(self, refresh_token: str, caller: Caller) -> tuple[Opened | Session, str]:
        """The tokens, or the session that was ended because of a second use; and what to count."""
        now = utc(self._clock)
        token_hash = self._hash.digest(refresh_token[:MAX_REFRESH_TOKEN])
        async with self._store.transaction() as connection:
            session = await self._hold(connection, token_hash)
            if session.ended_at is not None:
                raise ServiceError(ErrorReason.CREDENTIAL_REVOKED)
            if session.expires_at <= now:
                raise ServiceError(ErrorReason.TOKEN_EXPIRED)
            user = await users.by_id(connection, session.user_id)
            if user.is_barred(now):
                raise ServiceError(ErrorReason.ACCOUNT_LOCKED)
            used = await connection.fetchrow(
                "SELECT used_at, used_address, successor FROM refresh_tokens WHERE token_hash = $1", token_hash
            )
            assert used is not None
            if used["used_at"] is None:
                successor = await self._replace(connection, session, token_hash, caller, now)
                return self._opened(session, user, successor), "OK"
            if self._is_lost_answer(used, caller, now):
                successor = self._box.decrypt(used["successor"], session.session_id).decode()
                return self._opened(session, user, successor), "repeated"
            await self._end(connection, session, "refresh token used twice", now)
            return session, "reused"

    async def _hold(self, connection: Connection, token_hash: bytes) -> Session:
        """The session of a token, its row held: two refreshes at once come one after the other."""
        row = await connection.fetchrow(
            f"SELECT {_COLUMNS} FROM user_sessions WHERE session_id = "  # noqa: S608 - a constant
            "(SELECT session_id FROM refresh_tokens WHERE token_hash = $1) FOR UPDATE",
            token_hash,
        )
        if row is None:
            raise ServiceError(ErrorReason.TOKEN_REFUSED)
        return Session.of(row)

    async def _replace(
        self, connection: Connection, session: Session, token_hash: bytes, caller: Caller, now: datetime
    ) -> str:
        successor = _new_refresh_token()
        # The answer that named this token has arrived: nobody needs it a second time.
        await connection.execute(
            "UPDATE refresh_tokens SET successor = NULL WHERE session_id = $1 AND successor IS NOT NULL",
            session.session_id,
        )
        await connection.execute(
            "UPDATE refresh_tokens SET used_at = $2, used_address = $3, successor = $4 WHERE token_hash = $1",
            token_hash,
            now,
            _inet(caller.address),
            self._box.encrypt(successor.encode(), session.session_id),
        )
        await self._add_token(connection, session, successor, now)
        await connection.execute(
            "UPDATE user_sessions SET refreshed_at = $2 WHERE session_id = $1", session.session_id, now
        )
        return successor

    def _is_lost_answer(self, used: Row, caller: Caller, now: datetime) -> bool:
        """Without a successor that one was used: its answer has arrived, and this is somebody else."""
        return (
            used["successor"] is not None
            and now - used["used_at"] <= timedelta(seconds=LOST_ANSWER_S)
            and used["used_address"] == _inet(caller.address)
        )

    async def end(self, user_id: int, session_id: str, reason: str) -> None:
        """End one of the user's sessions; one that has ended is no error. Raises ServiceError LOGIN_SESSION_NOT_FOUND."""
        async with self._store.transaction() as connection:
            row = await connection.fetchrow(
                f"SELECT {_COLUMNS} FROM user_sessions WHERE session_id = $1 AND user_id = $2 FOR UPDATE",  # noqa: S608 - a constant
                session_id,
                user_id,
            )
            if row is None:
                raise ServiceError(ErrorReason.LOGIN_SESSION_NOT_FOUND)
            session = Session.of(row)
            if session.ended_at is None:
                await self._end(connection, session, reason, utc(self._clock))

    async def end_all(self, connection: Connection, user_id: int, reason: str, *, but: str = "") -> int:
        """In a transaction that holds the user's row, as its last step: end all sessions, `but` one; return how many."""
        now = utc(self._clock)
        rows = await connection.fetch(
            "UPDATE user_sessions SET ended_at = $2, end_reason = $3 "
            "WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 AND session_id <> $4 RETURNING session_id",
            user_id,
            now,
            reason,
            but,
        )
        for row in rows:
            await revocations.revoke(connection, revocations.SESSION, row["session_id"], user_id=user_id, reason=reason)
        return len(rows)

    async def page(self, user_id: int, size: int, before: tuple[datetime, str] | None) -> list[Session]:
        """Open sessions, the newest first; `before` is (created_at, session_id) of the last one seen."""
        at, session_id = before if before is not None else (None, "")
        async with self._store.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {_COLUMNS} FROM user_sessions WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 "  # noqa: S608 - a constant
                "AND ($3::timestamptz IS NULL OR (created_at, session_id) < ($3, $4)) "
                "ORDER BY created_at DESC, session_id DESC LIMIT $5",
                user_id,
                utc(self._clock),
                at,
                session_id,
                size,
            )
        return [Session.of(row) for row in rows]

    async def purge(self) -> int:
        """Remove sessions that ended or expired long ago, their refresh tokens with them; return how many."""
        async with self._store.connection() as connection:
            done: str = await connection.execute(
                "DELETE FROM user_sessions WHERE coalesce(ended_at, expires_at) < $1", utc(self._clock) - KEPT_FOR
            )
        return int(done.rpartition(" ")[2])

    def _opened(self, session: Session, user: User, refresh_token: str) -> Opened:
        scopes = session.scopes_for(user)
        grant = Grant(
            user=user,
            account=session.account,
            scopes=scopes,
            session=session.session_id,
            ends_at=unix_seconds(session.expires_at),
        )
        return Opened(session, scopes, self._tokens.make(grant), refresh_token)

    async def _add_token(self, connection: Connection, session: Session, token: str, now: datetime) -> None:
        await connection.execute(
            "INSERT INTO refresh_tokens (token_hash, session_id, created_at) VALUES ($1, $2, $3)",
            self._hash.digest(token),
            session.session_id,
            now,
        )

    async def _end(self, connection: Connection, session: Session, reason: str, now: datetime) -> None:
        await connection.execute(
            "UPDATE user_sessions SET ended_at = $2, end_reason = $3 WHERE session_id = $1",
            session.session_id,
            now,
            reason,
        )
        await revocations.revoke(
            connection, revocations.SESSION, session.session_id, user_id=session.user_id, reason=reason
        )

    async def _end_surplus(self, connection: Connection, user_id: int, now: datetime) -> None:
        rows = await connection.fetch(
            f"SELECT {_COLUMNS} FROM user_sessions WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 "  # noqa: S608 - a constant
            "ORDER BY created_at DESC, session_id DESC OFFSET $3 FOR UPDATE",
            user_id,
            now,
            MAX_SESSIONS,
        )
        for row in rows:
            await self._end(connection, Session.of(row), "too many sessions", now)


def _new_refresh_token() -> str:
    return f"rt_{secrets.token_urlsafe(32)}"


def _inet(address: str) -> IPv4Address | IPv6Address:
    return ip_address(address)

"""From an address to a user: registering, proving the address, a forgotten password.

Whoever does not know whether an address is known learns it from none of these: answers are the same, and so is the work
before them; mails go out behind the answer.
"""

from __future__ import annotations

from typing import Final

import asyncpg

from exchange.auth import password_policy, users
from exchange.auth.call_budget import CallBudget
from exchange.auth.contract import RESET_PASSWORD, VERIFY_EMAIL, Caller, MailCodes, Throttle
from exchange.auth.instants import utc
from exchange.auth.login import MAX_CODE, UNKNOWN_USER, WRONG_CODE, check_given
from exchange.auth.passwords import Passwords
from exchange.auth.sessions import Sessions
from exchange.auth.store import Connection, Store
from exchange.auth.users import User
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError

PASSWORD_CHANGED: Final = "password changed"  # noqa: S105 - a reason


class Registration:
    """What anybody may ask for with an address. ServiceError AUTH_UNAVAILABLE, OVERLOADED and TOO_MANY_ATTEMPTS anywhere."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        passwords: Passwords,
        throttle: Throttle,
        codes: MailCodes,
        sessions: Sessions,
        budget: CallBudget,
    ) -> None:
        self._store = store
        self._clock = clock
        self._passwords = passwords
        self._throttle = throttle
        self._codes = codes
        self._sessions = sessions
        self._budget = budget

    async def register(self, email: str, password: str, caller: Caller) -> None:
        """Make a user that is not verified yet, or tell the owner of the address that there is one.

        The password of a user that exists never changes here, also of one that never proved its address: who owns it
        sets one by mail. Raises ServiceError INVALID_FIELD, PASSWORD_TOO_WEAK.
        """
        check_given(password, "password")
        address = users.normal_email(email)
        password_policy.check(password, address, "password")
        self._budget.spend(caller.address)
        password_hash = await self._passwords.hash(password)
        async with self._store.transaction() as connection:
            made = await _insert(connection, address, password_hash, self._clock)
            user = made if made is not None else await users.by_email(connection, address)
        if made is not None:
            await self._codes.send(made, VERIFY_EMAIL)
        elif user is not None:
            await self._codes.tell_owner(user)

    async def resend_verification(self, email: str, caller: Caller) -> None:
        """Another code for a user that is not verified; nothing for anybody else."""
        user = await self._find(email, caller)
        if user is not None and not user.email_verified:
            await self._codes.send(user, VERIFY_EMAIL)

    async def verify_email(self, email: str, code: str, caller: Caller) -> None:
        """Prove the address. Raises ServiceError CODE_REFUSED."""
        address = users.normal_email(email)
        _check_code(code)
        attempt = await self._throttle.admit(address, caller.address)
        async with self._store.transaction() as connection:
            user = await _hold(connection, address)
            taken = await self._codes.take(connection, user, VERIFY_EMAIL, code)
            if user is not None and taken:
                await _set_verified(connection, user)
        if user is None or not taken:
            await self._throttle.failed(attempt, *_failure(user))
            raise ServiceError(ErrorReason.CODE_REFUSED)
        await self._throttle.withdrawn(attempt)

    async def request_password_reset(self, email: str, caller: Caller) -> None:
        """Send a code that sets a new password."""
        user = await self._find(email, caller)
        if user is not None:
            await self._codes.send(user, RESET_PASSWORD)

    async def reset_password(self, email: str, code: str, new_password: str, caller: Caller) -> None:
        """Set a new password by code and end all sessions; the address is proven by it too.

        The second factor, API keys and locks stay. Raises ServiceError CODE_REFUSED, PASSWORD_TOO_WEAK.
        """
        check_given(new_password, "new_password")
        address = users.normal_email(email)
        _check_code(code)
        password_policy.check(new_password, address, "new_password")
        attempt = await self._throttle.admit(address, caller.address)
        try:
            password_hash = await self._passwords.hash(new_password)
        except ServiceError:
            await self._throttle.withdrawn(attempt)
            raise
        async with self._store.transaction() as connection:
            user = await _hold(connection, address)
            taken = await self._codes.take(connection, user, RESET_PASSWORD, code)
            if user is not None and taken:
                await users.set_password_hash(connection, user.user_id, password_hash)
                await _set_verified(connection, user)
                await self._sessions.end_all(connection, user.user_id, PASSWORD_CHANGED)
        if user is None or not taken:
            await self._throttle.failed(attempt, *_failure(user))
            raise ServiceError(ErrorReason.CODE_REFUSED)
        await self._throttle.withdrawn(attempt)

    async def change_password(self, verified: User, new_password: str, *, keep_session: str) -> None:
        """Set a new password for a user whose present one was right just now, and end all sessions but one.

        Raises ServiceError PASSWORD_TOO_WEAK, and CREDENTIALS_REFUSED where it was changed meanwhile.
        """
        check_given(new_password, "new_password")
        password_policy.check(new_password, verified.email, "new_password")
        password_hash = await self._passwords.hash(new_password)
        async with self._store.transaction() as connection:
            user = await users.by_id(connection, verified.user_id, lock=True)
            if user.password_hash != verified.password_hash:
                raise ServiceError(ErrorReason.CREDENTIALS_REFUSED)
            await users.set_password_hash(connection, user.user_id, password_hash)
            await self._sessions.end_all(connection, user.user_id, PASSWORD_CHANGED, but=keep_session)

    async def _find(self, email: str, caller: Caller) -> User | None:
        address = users.normal_email(email)
        self._budget.spend(caller.address)
        async with self._store.connection() as connection:
            return await users.by_email(connection, address)


async def _insert(connection: Connection, email: str, password_hash: str, clock: Clock) -> User | None:
    """The new user, None where the address is taken: two calls at once make one."""
    row: asyncpg.Record | None = await connection.fetchrow(
        "INSERT INTO users (email, password_hash, created_at) VALUES ($1, $2, $3) "  # noqa: S608 - a constant
        f"ON CONFLICT (email) DO NOTHING RETURNING {users.COLUMNS}",
        email,
        password_hash,
        utc(clock),
    )
    return None if row is None else User.of(row)


async def _hold(connection: Connection, email: str) -> User | None:
    found = await users.by_email(connection, email)
    return None if found is None else await users.by_id(connection, found.user_id, lock=True)


async def _set_verified(connection: Connection, user: User) -> None:
    await connection.execute("UPDATE users SET email_verified = true WHERE user_id = $1", user.user_id)


def _failure(user: User | None) -> tuple[int | None, str]:
    return (None, UNKNOWN_USER) if user is None else (user.user_id, WRONG_CODE)


def _check_code(code: str) -> None:
    if not code:
        raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": "code"})
    if len(code) > MAX_CODE:
        raise ServiceError(ErrorReason.CODE_REFUSED)

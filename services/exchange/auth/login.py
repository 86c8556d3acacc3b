"""Who somebody is: password, lock, address, second factor, in this order and with one answer to whatever is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exchange.auth import users
from exchange.auth.contract import Attempt, Caller, SecondFactor, Throttle
from exchange.auth.events import Events
from exchange.auth.instants import utc
from exchange.auth.metrics import AuthMetrics
from exchange.auth.passwords import MAX_GIVEN, Passwords, Verdict
from exchange.auth.sessions import Opened, Sessions
from exchange.auth.store import Store
from exchange.auth.sub_accounts import check_account
from exchange.auth.tokens import scopes_of
from exchange.auth.users import User
from exchange.runtime.audit.contract import LOGIN_FAILED, LOGIN_SUCCEEDED, SECOND_FACTOR_FAILED
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError

# Reasons as `failed_login_attempts` and operators see them; a caller never does.
UNKNOWN_USER: Final = "unknown user"
WRONG_PASSWORD: Final = "wrong password"  # noqa: S105 - a reason
WRONG_CODE: Final = "wrong code"
LOCKED: Final = "locked"
NOT_VERIFIED: Final = "not verified"
MAX_CODE: Final = 64


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is given at a log-in. `account` "" is the main one; `scopes` empty is all that the user may do."""

    email: str
    password: str
    code: str
    account: str = ""
    scopes: tuple[str, ...] = ()


class Login:
    """Checks passwords and opens sessions."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        passwords: Passwords,
        throttle: Throttle,
        second_factor: SecondFactor,
        sessions: Sessions,
        events: Events,
        metrics: AuthMetrics,
    ) -> None:
        self._store = store
        self._clock = clock
        self._passwords = passwords
        self._throttle = throttle
        self._second_factor = second_factor
        self._sessions = sessions
        self._events = events
        self._metrics = metrics

    async def open(self, given: Credentials, caller: Caller) -> Opened:
        """Open a session.

        Raises ServiceError TOO_MANY_ATTEMPTS; CREDENTIALS_REFUSED for any wrong name, password or code; and to the right
        password only ACCOUNT_LOCKED, EMAIL_NOT_VERIFIED, SECOND_FACTOR_REQUIRED, SUB_ACCOUNT_NOT_FOUND, SCOPE_MISSING.
        """
        try:
            opened = await self._open(given, caller)
        except ServiceError as error:
            self._metrics.logins.labels(error.reason_name).inc()
            raise
        self._metrics.logins.labels("OK").inc()
        return opened

    async def _open(self, given: Credentials, caller: Caller) -> Opened:
        check_given(given.password, "password")
        email = users.normal_email(given.email)
        attempt = await self._throttle.admit(email, caller.address)
        async with self._store.connection() as connection:
            user = await users.by_email(connection, email)
        verdict = await self._verify(attempt, user, given.password)
        if user is None or not verdict.right:
            await self._fail(attempt, user, WRONG_PASSWORD if user is not None else UNKNOWN_USER, caller)
            raise ServiceError(ErrorReason.CREDENTIALS_REFUSED)
        await self._check_standing(attempt, user, caller)
        await self._check_code(attempt, user, given.code, caller)
        try:
            account = await self._choose(user, given)
            new_hash = await self._passwords.hash(given.password) if verdict.outdated else None
            opened = await self._sessions.open(user, account, given.scopes, caller, new_hash=new_hash)
        except ServiceError:
            await self._throttle.withdrawn(attempt)
            raise
        await self._throttle.succeeded(attempt)
        self._events.note(
            LOGIN_SUCCEEDED, user_id=user.user_id, address=caller.address, details=opened.session.session_id
        )
        return opened

    async def check_password(self, user_id: int, password: str, caller: Caller) -> User:
        """Whoever holds a token proves that it is the user; return it. A wrong password counts as at a log-in.

        Raises ServiceError TOO_MANY_ATTEMPTS, CREDENTIALS_REFUSED, ACCOUNT_LOCKED.
        """
        check_given(password, "password")
        async with self._store.connection() as connection:
            user = await users.by_id(connection, user_id)
        attempt = await self._throttle.admit(user.email, caller.address)
        verdict = await self._verify(attempt, user, password)
        if not verdict.right:
            await self._fail(attempt, user, WRONG_PASSWORD, caller)
            raise ServiceError(ErrorReason.CREDENTIALS_REFUSED)
        if user.is_locked(utc(self._clock)):
            await self._fail(attempt, user, LOCKED, caller)
            raise ServiceError(ErrorReason.ACCOUNT_LOCKED)
        await self._throttle.withdrawn(attempt)
        return user

    async def check_code(self, user: User, code: str, caller: Caller) -> None:
        """Whoever holds a token proves it by a code of the second factor, where that is on.

        Raises ServiceError TOO_MANY_ATTEMPTS, SECOND_FACTOR_REQUIRED, CREDENTIALS_REFUSED.
        """
        if not user.second_factor:
            return
        attempt = await self._throttle.admit(user.email, caller.address)
        await self._check_code(attempt, user, code, caller)
        await self._throttle.withdrawn(attempt)

    async def _verify(self, attempt: Attempt, user: User | None, password: str) -> Verdict:
        try:
            return await self._passwords.verify(user.password_hash if user is not None else None, password)
        except ServiceError:
            # Overloaded: nothing was guessed.
            await self._throttle.withdrawn(attempt)
            raise

    async def _check_standing(self, attempt: Attempt, user: User, caller: Caller) -> None:
        if user.is_locked(utc(self._clock)):
            await self._fail(attempt, user, LOCKED, caller)
            raise ServiceError(ErrorReason.ACCOUNT_LOCKED)
        if not user.email_verified:
            await self._throttle.withdrawn(attempt)
            self._note_failure(user, NOT_VERIFIED, caller)
            raise ServiceError(ErrorReason.EMAIL_NOT_VERIFIED)

    async def _check_code(self, attempt: Attempt, user: User, code: str, caller: Caller) -> None:
        if not user.second_factor:
            return
        if not code:
            await self._throttle.withdrawn(attempt)
            raise ServiceError(ErrorReason.SECOND_FACTOR_REQUIRED)
        if len(code) > MAX_CODE or not await self._second_factor.verify(user, code):
            await self._throttle.failed(attempt, user.user_id, WRONG_CODE)
            self._events.note(
                SECOND_FACTOR_FAILED, user_id=user.user_id, address=caller.address, outcome="CREDENTIALS_REFUSED"
            )
            raise ServiceError(ErrorReason.CREDENTIALS_REFUSED)

    async def _choose(self, user: User, given: Credentials) -> str:
        """The account of the session. Raises ServiceError SUB_ACCOUNT_NOT_FOUND, SCOPE_MISSING."""
        missing = set(given.scopes).difference(scopes_of(user))
        if missing:
            raise ServiceError(ErrorReason.SCOPE_MISSING, metadata={"scope": min(missing)})
        async with self._store.connection() as connection:
            return await check_account(connection, user.user_id, given.account)

    async def _fail(self, attempt: Attempt, user: User | None, reason: str, caller: Caller) -> None:
        await self._throttle.failed(attempt, None if user is None else user.user_id, reason)
        self._note_failure(user, reason, caller)

    def _note_failure(self, user: User | None, reason: str, caller: Caller) -> None:
        self._events.note(
            LOGIN_FAILED,
            user_id=None if user is None else user.user_id,
            address=caller.address,
            outcome="REFUSED",
            details=reason,
        )


def check_given(password: str, field: str) -> None:
    """Refuse to work on what no password is. Raises ServiceError FIELD_REQUIRED, INVALID_FIELD."""
    if not password:
        raise ServiceError(ErrorReason.FIELD_REQUIRED, metadata={"field": field})
    if len(password) > MAX_GIVEN:
        raise ServiceError(
            ErrorReason.INVALID_FIELD, f"{field} has more than {MAX_GIVEN} characters", metadata={"field": field}
        )

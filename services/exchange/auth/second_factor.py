"""The second factor: codes of an authenticator (TOTP, RFC 6238) and ten recovery codes for when it is lost.

Each code counts once, whoever comes twice with it and however close together: a step of time by a column that only grows, a
recovery code by the moment at which it was used. Guessing is bounded by the throttle around every caller.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

import pyotp

from exchange.auth.encryption import Keyring
from exchange.auth.store import Connection, Store
from exchange.auth.users import User
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError

ISSUER: Final = "PinCEX"
STEP_S: Final = 30
STEPS_ASIDE: Final = 1
"""Steps before and after the present one whose code is taken too: clocks differ, and typing takes time."""
RECOVERY_CODES: Final = 10

_CODE_DIGITS: Final = 6
# Base32 without what looks alike: 50 bits in ten characters.
_ALPHABET: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_RECOVERY_CHARACTERS: Final = 10
_MAX_CODE_CHARACTERS: Final = 32


class TotpSecondFactor:
    """The SecondFactor of the contract."""

    def __init__(self, store: Store, keyring: Keyring, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._box = keyring.box("totp-secret")
        self._hash = keyring.keyed_hash("recovery-code")

    async def verify(self, user: User, code: str) -> bool:
        """See the contract."""
        async with self._store.transaction() as connection:
            return await self._use(connection, user, code)

    async def begin(self, user: User) -> tuple[str, str]:
        """See the contract. Beginning again makes another secret, and the one before is forgotten."""
        secret = pyotp.random_base32()
        async with self._store.connection() as connection:
            done: str = await connection.execute(
                "UPDATE users SET totp_secret = $2, totp_last_step = 0 WHERE user_id = $1 AND NOT totp_enabled",
                user.user_id,
                self._box.encrypt(secret.encode(), str(user.user_id)),
            )
        if done == "UPDATE 0":
            raise ServiceError(ErrorReason.SECOND_FACTOR_STATE)
        return secret, pyotp.TOTP(secret).provisioning_uri(name=user.email, issuer_name=ISSUER)

    async def confirm(self, user: User, code: str) -> list[str]:
        """See the contract."""
        async with self._store.transaction() as connection:
            row = await connection.fetchrow(
                "SELECT totp_secret FROM users WHERE user_id = $1 AND NOT totp_enabled FOR UPDATE", user.user_id
            )
            if row is None or row["totp_secret"] is None:
                raise ServiceError(ErrorReason.SECOND_FACTOR_STATE)
            step = self._step_of(self._secret(user, row["totp_secret"]), code)
            if step is None:
                raise ServiceError(ErrorReason.CODE_REFUSED)
            await connection.execute(
                "UPDATE users SET totp_enabled = true, totp_last_step = $2 WHERE user_id = $1", user.user_id, step
            )
            return await self._new_recovery_codes(connection, user)

    async def remove(self, user: User, code: str) -> None:
        """See the contract."""
        async with self._store.transaction() as connection:
            await self._must_be_on(connection, user)
            if not await self._use(connection, user, code):
                raise ServiceError(ErrorReason.CODE_REFUSED)
            await connection.execute(
                "UPDATE users SET totp_enabled = false, totp_secret = NULL WHERE user_id = $1", user.user_id
            )
            await connection.execute("DELETE FROM recovery_codes WHERE user_id = $1", user.user_id)

    async def renew_recovery_codes(self, user: User) -> list[str]:
        """See the contract."""
        async with self._store.transaction() as connection:
            await self._must_be_on(connection, user)
            return await self._new_recovery_codes(connection, user)

    async def recovery_codes_left(self, user_id: int) -> int:
        """See the contract."""
        async with self._store.connection() as connection:
            left: int = await connection.fetchval(
                "SELECT count(*) FROM recovery_codes WHERE user_id = $1 AND used_at IS NULL", user_id
            )
        return left

    async def _must_be_on(self, connection: Connection, user: User) -> None:
        """Hold the user's row. Raises ServiceError SECOND_FACTOR_STATE."""
        on = await connection.fetchval("SELECT totp_enabled FROM users WHERE user_id = $1 FOR UPDATE", user.user_id)
        if not on:
            raise ServiceError(ErrorReason.SECOND_FACTOR_STATE)

    async def _use(self, connection: Connection, user: User, code: str) -> bool:
        """Whether the code is right, and used up by this call and no other."""
        # Too long to be one: not worth a hash.
        if len(code) > _MAX_CODE_CHARACTERS or not code.isascii():
            return False
        if len(code) == _CODE_DIGITS and code.isdigit():
            return await self._use_step(connection, user, code)
        done: str = await connection.execute(
            "UPDATE recovery_codes SET used_at = clock_timestamp() "
            "WHERE user_id = $1 AND code_hash = $2 AND used_at IS NULL "
            "AND EXISTS (SELECT FROM users WHERE users.user_id = $1 AND totp_enabled)",
            user.user_id,
            self._recovery_hash(user, code),
        )
        return done == "UPDATE 1"

    async def _use_step(self, connection: Connection, user: User, code: str) -> bool:
        sealed = await connection.fetchval(
            "SELECT totp_secret FROM users WHERE user_id = $1 AND totp_enabled", user.user_id
        )
        step = None if sealed is None else self._step_of(self._secret(user, sealed), code)
        if step is None:
            return False
        # The secret too: it may have been exchanged for another in between.
        done: str = await connection.execute(
            "UPDATE users SET totp_last_step = $2 WHERE user_id = $1 AND totp_enabled AND totp_last_step < $2 "
            "AND totp_secret = $3",
            user.user_id,
            step,
            sealed,
        )
        return done == "UPDATE 1"

    def _secret(self, user: User, sealed: bytes) -> str:
        return self._box.decrypt(sealed, str(user.user_id)).decode()

    def _step_of(self, secret: str, code: str) -> int | None:
        """The step whose code this is; every step that counts is compared, whichever it is."""
        totp = pyotp.TOTP(secret, digits=_CODE_DIGITS, interval=STEP_S)
        now = self._clock.time_ns() // (STEP_S * 1_000_000_000)
        found = None
        for step in range(now - STEPS_ASIDE, now + STEPS_ASIDE + 1):
            if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode()):
                found = step
        return found

    async def _new_recovery_codes(self, connection: Connection, user: User) -> list[str]:
        codes = [_new_recovery_code() for _ in range(RECOVERY_CODES)]
        await connection.execute("DELETE FROM recovery_codes WHERE user_id = $1", user.user_id)
        await connection.executemany(
            "INSERT INTO recovery_codes (user_id, code_hash) VALUES ($1, $2)",
            [(user.user_id, self._recovery_hash(user, code)) for code in codes],
        )
        return codes

    def _recovery_hash(self, user: User, code: str) -> bytes:
        return self._hash.digest(str(user.user_id), code.upper().replace("-", "").replace(" ", ""))


def _new_recovery_code() -> str:
    """As it is shown: two groups of five."""
    code = "".join(secrets.choice(_ALPHABET) for _ in range(_RECOVERY_CHARACTERS))
    return f"{code[:5]}-{code[5:]}"

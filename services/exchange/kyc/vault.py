"""Personal data at rest: a data key for each user, itself encrypted under a key that PINCEX_KYC_SECRET gives.

What is sealed opens with the user's data key alone; erasing destroys that key, and with it every copy of what was sealed.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from exchange.runtime.encryption import KEY_BYTES, Box, DecryptionError, Keyring
from exchange.runtime.errors import ErrorReason, ServiceError

if TYPE_CHECKING:
    from exchange.kyc.person import Person
    from exchange.runtime.config import Secret
    from exchange.runtime.database import Connection

_SALT: Final = b"pincex-kyc-v1"


class UserBox:
    """Encrypts for one user. `key_id` names the row of the data key."""

    def __init__(self, key_id: int, user: str, key: bytes) -> None:
        self.key_id = key_id
        self._user = user
        self._box = Box(key)

    def seal(self, plain: bytes, purpose: str) -> bytes:
        """Encrypt; `purpose` is bound in, such as "data:7" for the data of case 7."""
        return self._box.encrypt(plain, f"{purpose}:{self._user}")

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """What was sealed for this purpose. Raises ServiceError INTERNAL where it is not that."""
        try:
            return self._box.decrypt(sealed, f"{purpose}:{self._user}")
        except DecryptionError:
            _unreadable()


class Vault:
    """Makes, opens and destroys data keys."""

    def __init__(self, secret: Secret) -> None:
        keyring = Keyring(secret, _SALT)
        self._wrapping = keyring.box("data-key")
        self._requests = keyring.keyed_hash("request")
        self._proof = keyring.keyed_hash("proof").digest("kyc")
        self._proved = False

    def request_hash(self, user: str, tier: int, person: Person) -> bytes:
        """32 bytes of a request's body, of no use to whoever lacks the secret."""
        return self._requests.digest(user, str(tier), *person.values())

    async def box(self, connection: Connection, user: str) -> UserBox:
        """The user's; made at first use. Within a transaction that holds the user's lock.

        Raises ServiceError INTERNAL where the tables were encrypted with another secret.
        """
        await self._prove(connection)
        row = await connection.fetchrow(
            "SELECT key_id, wrapped FROM kyc_keys WHERE user_id = $1 AND erased_at IS NULL", user
        )
        if row is not None:
            return UserBox(row["key_id"], user, self._unwrap(row["wrapped"], user))
        key = secrets.token_bytes(KEY_BYTES)
        key_id = await connection.fetchval(
            "INSERT INTO kyc_keys (user_id, wrapped) VALUES ($1, $2) RETURNING key_id",
            user,
            self._wrapping.encrypt(key, user),
        )
        return UserBox(key_id, user, key)

    async def box_of(self, connection: Connection, key_id: int) -> UserBox | None:
        """The one that something was sealed with; None once it is erased. Raises as `box`."""
        await self._prove(connection)
        row = await connection.fetchrow("SELECT user_id, wrapped FROM kyc_keys WHERE key_id = $1", key_id)
        if row is None or row["wrapped"] is None:
            return None
        return UserBox(key_id, row["user_id"], self._unwrap(row["wrapped"], row["user_id"]))

    async def destroy(self, connection: Connection, user: str) -> None:
        """What was sealed for the user opens no more."""
        await connection.execute(
            "UPDATE kyc_keys SET wrapped = NULL, erased_at = clock_timestamp() WHERE user_id = $1 AND erased_at IS NULL",
            user,
        )

    async def _prove(self, connection: Connection) -> None:
        """With another secret nothing is read, and above all nothing is added that the right one could not read."""
        if self._proved:
            return
        await connection.execute("INSERT INTO kyc_secret (proof) VALUES ($1) ON CONFLICT DO NOTHING", self._proof)
        found = await connection.fetchval("SELECT proof FROM kyc_secret")
        if not hmac.compare_digest(found, self._proof):
            _unreadable()
        self._proved = True

    def _unwrap(self, wrapped: bytes, user: str) -> bytes:
        try:
            return self._wrapping.decrypt(wrapped, user)
        except DecryptionError:
            _unreadable()


def _unreadable() -> NoReturn:
    structlog.get_logger("kyc").error("personal data does not open: it was encrypted with another PINCEX_KYC_SECRET")
    raise ServiceError(ErrorReason.INTERNAL, "personal data cannot be read now")

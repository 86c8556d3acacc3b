"""The keys that sign access tokens: shared by all instances through PostgreSQL, replaced without logging anyone out.

A key's life: it is published, and only `PUBLISH_AHEAD_S` later it signs, when every verifier has read it. From then on the
key before it signs no more, but stays published until its last token has expired. Private keys are stored encrypted.

A key that was stolen is retired: it is gone at once, and a revocation tells every server. The one that takes its place signs
`REPLACE_AHEAD_S` later, for the edge must know it; until then nothing is signed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from exchange.auth import revocations
from exchange.auth.encryption import DecryptionError, Keyring
from exchange.auth.instants import utc
from exchange.auth.metrics import AuthMetrics
from exchange.auth.store import Connection, Row, Store
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError, reject

# Envoy keeps a key set for five minutes at most, our servers for seconds.
PUBLISH_AHEAD_S: Final = 600
# How often an instance looks for keys that another one made or retired. With the time for which the edge keeps a set
# (`stack.edge.plan.Identity.keys_age_s`) and that of fetching it this stays below REPLACE_AHEAD_S.
REFRESH_S: Final = 2.0
REPLACE_AHEAD_S: Final = 5
MAX_KEY_ID: Final = 128
# A retired key is published for the life of a token and this; then it may go.
VERIFY_SLACK_S: Final = 300
_PURPOSE: Final = "signing-key"
_COORDINATE_BYTES: Final = 32


class WrongSecret(Exception):
    """The stored keys were encrypted with another PINCEX_AUTH_SECRET."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key. `retired_at` None: no later one is known."""

    key_id: str
    private_key: ec.EllipticCurvePrivateKey
    public_jwk: dict[str, str]
    created_at: datetime
    signs_from: datetime
    retired_at: datetime | None


class SigningKeys:
    """Knows the keys; `refresh` reads them and does what is due."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        clock: Clock,
        metrics: AuthMetrics,
        *,
        rotation_s: int,
        token_lifetime_s: int,
    ) -> None:
        self._store = store
        self._box = keyring.box(_PURPOSE)
        self._clock = clock
        self._metrics = metrics
        self._rotation = timedelta(seconds=rotation_s)
        self._verifies_for = timedelta(seconds=token_lifetime_s + VERIFY_SLACK_S)
        self._keys: dict[str, SigningKey] = {}
        # On the monotonic clock.
        self._read_at = float("-inf")

    def signing_key(self) -> tuple[str, ec.EllipticCurvePrivateKey]:
        """The newest that signs already. Raises ServiceError AUTH_UNAVAILABLE while none is known for sure.

        A key that was made since the last look does not sign yet for PUBLISH_AHEAD_S; after that an instance that has not
        seen the database cannot know whether its own has retired.
        """
        if self._clock.monotonic() - self._read_at > PUBLISH_AHEAD_S:
            raise ServiceError(ErrorReason.AUTH_UNAVAILABLE)
        now = utc(self._clock)
        newest = self._signing(now)
        if newest is None:
            raise ServiceError(ErrorReason.AUTH_UNAVAILABLE)
        self._metrics.signing_key_seconds.set((now - newest.signs_from).total_seconds())
        return newest.key_id, newest.private_key

    def is_known(self, key_id: str) -> bool:
        """Whether what this key signed may still be good: it was not retired."""
        return key_id in self._keys

    def key_set(self) -> bytes:
        """The JSON Web Key Set (RFC 7517) of all keys whose tokens may be alive, and of those that sign next."""
        now = utc(self._clock)
        alive = [
            key.public_jwk
            for key in self._keys.values()
            if key.retired_at is None or now < key.retired_at + self._verifies_for
        ]
        return json.dumps({"keys": alive}, separators=(",", ":")).encode()

    async def run(self) -> None:
        """Refresh for ever; an outage of the database is waited out."""
        log = structlog.get_logger("signing-keys")
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except ServiceError as error:
                log.warning("signing keys could not be refreshed", error=error.message)

    async def refresh(self) -> None:
        """Read the keys; make the first, the next one when it is time, and drop those whose tokens are long gone.

        Raises ServiceError AUTH_UNAVAILABLE, WrongSecret.
        """
        async with self._store.connection() as connection:
            await self._load(connection)
        if self._is_due():
            async with self._store.transaction() as connection:
                await self._lock(connection)
                await self._load(connection)
                if self._is_due():
                    await self._make(connection)
                    await self._load(connection)

    async def rotate(self) -> str:
        """Make the next key now and return its id: of a key that waits to sign already, if there is one. Raises as above."""
        async with self._store.transaction() as connection:
            await self._lock(connection)
            await self._load(connection)
            newest = self._newest()
            if newest is None or newest.signs_from <= utc(self._clock):
                key_id = await self._make(connection)
                await self._load(connection)
                return key_id
            return newest.key_id

    async def retire(self, key_id: str, reason: str) -> tuple[list[str], SigningKey]:
        """Void a stolen key, or with "" all there are; return the ids of those that are void by this, and the key that signs.

        A key that waits to sign goes too, where the one that signs does: it lay beside it. Raises ServiceError INVALID_FIELD
        for a key that nobody knows, AUTH_UNAVAILABLE.
        """
        async with self._store.transaction() as connection:
            await self._lock(connection)
            await self._load(connection)
            now = utc(self._clock)
            signing = self._signing(now)
            retired = [key for key in self._keys.values() if not key_id or key.key_id == key_id]
            if not retired and not await revocations.is_revoked(connection, revocations.SIGNING_KEY, key_id):
                reject(ErrorReason.INVALID_FIELD, field="key_id", value=key_id)
            if signing is None or signing in retired:
                retired += [key for key in self._keys.values() if key.signs_from > now and key not in retired]
            ids = [key.key_id for key in retired]
            await connection.execute("DELETE FROM auth_signing_keys WHERE key_id = ANY($1)", ids)
            if signing is None or signing in retired:
                await self._make(connection, now + timedelta(seconds=REPLACE_AHEAD_S))
            elif any(key.signs_from > now for key in retired):
                # Nobody takes over from it now.
                await connection.execute(
                    "UPDATE auth_signing_keys SET retired_at = NULL WHERE key_id = $1", signing.key_id
                )
            # Last, in the order of Store.
            for each in ids:
                await revocations.revoke(connection, revocations.SIGNING_KEY, each, reason=reason)
        # Not before the commit: what is read before may be taken back.
        async with self._store.connection() as connection:
            await self._load(connection)
        signs = self._signing(utc(self._clock)) or self._newest()
        assert signs is not None, "one was made"
        return ids, signs

    def _signing(self, now: datetime) -> SigningKey | None:
        """The newest that signs already."""
        signing = [
            key
            for key in self._keys.values()
            if key.signs_from <= now and (key.retired_at is None or key.retired_at > now)
        ]
        return max(signing, key=lambda key: key.signs_from, default=None)

    def _newest(self) -> SigningKey | None:
        return max(self._keys.values(), key=lambda key: key.signs_from, default=None)

    def _is_due(self) -> bool:
        newest = self._newest()
        return newest is None or newest.signs_from + self._rotation <= utc(self._clock)

    async def _lock(self, connection: Connection) -> None:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('pincex.auth_signing_keys'))")

    async def _load(self, connection: Connection) -> None:
        read_at = self._clock.monotonic()
        rows = await connection.fetch(
            "SELECT key_id, public_jwk, private_key, created_at, signs_from, retired_at FROM auth_signing_keys"
        )
        known = self._keys
        self._keys = {row["key_id"]: self._read(row, known.get(row["key_id"])) for row in rows}
        self._read_at = read_at

    def _read(self, row: Row, known: SigningKey | None) -> SigningKey:
        key_id: str = row["key_id"]
        return SigningKey(
            key_id=key_id,
            # Decrypted and parsed once.
            private_key=known.private_key if known is not None else self._open(row["private_key"], key_id),
            public_jwk=json.loads(row["public_jwk"]),
            created_at=row["created_at"],
            signs_from=row["signs_from"],
            retired_at=row["retired_at"],
        )

    def _open(self, sealed: bytes, key_id: str) -> ec.EllipticCurvePrivateKey:
        try:
            plain = self._box.decrypt(sealed, key_id)
        except DecryptionError as error:
            raise WrongSecret("the signing keys were encrypted with another PINCEX_AUTH_SECRET") from error
        key = serialization.load_der_private_key(plain, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    async def _make(self, connection: Connection, signs_from: datetime | None = None) -> str:
        """Publish a new key. The first one of all signs at once: there is none to bridge the time."""
        now = utc(self._clock)
        key = ec.generate_private_key(ec.SECP256R1())
        jwk = public_jwk(key.public_key())
        key_id = jwk["kid"]
        plain = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        if signs_from is None:
            signs_from = now + timedelta(seconds=PUBLISH_AHEAD_S if self._keys else 0)
        await connection.execute(
            "UPDATE auth_signing_keys SET retired_at = $1 WHERE retired_at IS NULL OR retired_at > $1", signs_from
        )
        await connection.execute("DELETE FROM auth_signing_keys WHERE retired_at < $1", now - 2 * self._verifies_for)
        await connection.execute(
            "INSERT INTO auth_signing_keys (key_id, public_jwk, private_key, created_at, signs_from) "
            "VALUES ($1, $2, $3, $4, $5)",
            key_id,
            json.dumps(jwk),
            self._box.encrypt(plain, key_id),
            now,
            signs_from,
        )
        return key_id


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """The public half as a JSON Web Key; its `kid` is the key's own thumbprint (RFC 7638)."""
    numbers = key.public_numbers()
    members = {"crv": "P-256", "kty": "EC", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}
    # The thumbprint is over exactly these members, in this order and form.
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    thumbprint = _base64url(hashlib.sha256(canonical).digest())
    return {**members, "kid": thumbprint, "use": "sig", "alg": "ES256"}


def _coordinate(value: int) -> str:
    return _base64url(value.to_bytes(_COORDINATE_BYTES, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

"""The public keys that access tokens are signed with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

from exchange.runtime.clock import Clock
from exchange.runtime.identity.store import STORE_ERRORS

ALGORITHM: Final = "ES256"
# Anybody can name a key that does not exist: no more questions than this come of it.
MIN_REFRESH_INTERVAL_S: Final = 1.0


class SigningKeys:
    """Knows the keys of `load`: their JWKs in JSON, by id. `refresh` is called from time to time, and for unknown ids."""

    def __init__(self, load: Callable[[], Awaitable[dict[str, str]]], clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._jwks: dict[str, str] = {}
        self._keys: dict[str, EllipticCurvePublicKey] = {}
        self._refreshed_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("identity")

    def get(self, key_id: str) -> EllipticCurvePublicKey | None:
        """The key, the same object for as long as it does not change; None for one that is not known."""
        return self._keys.get(key_id)

    async def refresh(self) -> None:
        """Read the keys anew. Raises one of STORE_ERRORS; then those that are known stay."""
        found = await self._load()
        keys: dict[str, EllipticCurvePublicKey] = {}
        for key_id, jwk in found.items():
            known = self._keys.get(key_id) if self._jwks.get(key_id) == jwk else None
            key = known if known is not None else self._read(key_id, jwk)
            if key is not None:
                keys[key_id] = key
        self._jwks, self._keys = found, keys
        self._refreshed_at = self._clock.monotonic()

    async def find(self, key_id: str) -> EllipticCurvePublicKey | None:
        """The key, after asking once more for one that is not known; at most once in MIN_REFRESH_INTERVAL_S, and once
        for all who ask meanwhile. Raises one of STORE_ERRORS.

        While no key is known at all the exchange is just being made, and the first one may be there at any moment.
        """
        due = not self._keys or self._clock.monotonic() - self._refreshed_at >= MIN_REFRESH_INTERVAL_S
        if due and key_id not in self._keys:
            if self._refreshing is None or self._refreshing.done():
                self._refreshing = asyncio.create_task(self.refresh())
                self._refreshing.add_done_callback(_seen)
            # One caller that goes away does not end it for the others.
            await asyncio.shield(self._refreshing)
        return self._keys.get(key_id)

    def _read(self, key_id: str, jwk: str) -> EllipticCurvePublicKey | None:
        """None for what is no key on P-256: tokens that it signed are refused."""
        try:
            key = jwt.PyJWK.from_json(jwk, algorithm=ALGORITHM).key
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            self._log.error("a signing key cannot be read", key_id=key_id, error=type(error).__name__)
            return None
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
            self._log.error("a signing key is not a public key on P-256", key_id=key_id)
            return None
        return key


def _seen(task: asyncio.Task[None]) -> None:
    """Everybody who waited may have gone: then nobody else looks at how it went."""
    if not task.cancelled():
        error = task.exception()
        assert error is None or isinstance(error, STORE_ERRORS), error

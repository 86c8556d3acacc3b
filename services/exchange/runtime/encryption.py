"""Secrets at rest: one key for each purpose, all derived from one secret of the service.

HKDF (RFC 5869) over SHA-256 gives each purpose a key of its own, so that what is stored for one cannot be passed off as
another's. What must be read again is encrypted with AES-256-GCM; what is only compared is hashed with HMAC-SHA256.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from exchange.runtime.config import Secret

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
# The first byte of what is stored, so that another method can be told apart one day.
_VERSION: Final = b"\x01"


class DecryptionError(Exception):
    """What was stored is not ours: another secret, another owner, or tampered with."""


class Box:
    """Encrypts for one purpose. 96-bit nonces are random: good for 2**32 messages a key, far beyond what is stored."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def encrypt(self, plain: bytes, owner: str) -> bytes:
        """Return version, nonce, ciphertext and tag. `owner` is bound in: a row copied to another owner does not open."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, owner.encode())

    def decrypt(self, stored: bytes, owner: str) -> bytes:
        """Return what was encrypted for this owner. Raises DecryptionError."""
        nonce, sealed = stored[1 : 1 + _NONCE_BYTES], stored[1 + _NONCE_BYTES :]
        if stored[:1] != _VERSION or len(nonce) != _NONCE_BYTES:
            raise DecryptionError("unknown form")
        try:
            return self._cipher.decrypt(nonce, sealed, owner.encode())
        except InvalidTag:
            raise DecryptionError("another secret or another owner") from None


class KeyedHash:
    """Hashes for one purpose: without the secret nobody can try out values against a stolen table."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def digest(self, *parts: str) -> bytes:
        """Return 32 bytes that depend on every part and on where each ends."""
        message = b"".join(len(data).to_bytes(4, "big") + data for data in (part.encode() for part in parts))
        return hmac.digest(self._key, message, "sha256")


class Keyring:
    """Derives the keys. Purposes are names in code, such as "totp-secret"; the same name gives the same key.

    `salt` names the service: two that were given the same secret have different keys.
    """

    def __init__(self, secret: Secret, salt: bytes) -> None:
        self._secret = secret
        self._salt = salt

    def box(self, purpose: str) -> Box:
        """The encryption of a purpose."""
        return Box(self._derive(f"encrypt:{purpose}"))

    def keyed_hash(self, purpose: str) -> KeyedHash:
        """The hash of a purpose."""
        return KeyedHash(self._derive(f"hash:{purpose}"))

    def _derive(self, info: str) -> bytes:
        return HKDF(SHA256(), KEY_BYTES, salt=self._salt, info=info.encode()).derive(self._secret.reveal().encode())

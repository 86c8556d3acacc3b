"""What the auth service keeps secret at rest: all its keys are derived from PINCEX_AUTH_SECRET."""

from __future__ import annotations

from exchange.runtime import encryption
from exchange.runtime.config import Secret
from exchange.runtime.encryption import Box, DecryptionError, KeyedHash

__all__ = ["Box", "DecryptionError", "KeyedHash", "Keyring"]


class Keyring(encryption.Keyring):
    """The auth service's."""

    def __init__(self, secret: Secret) -> None:
        super().__init__(secret, b"pincex-auth-v1")

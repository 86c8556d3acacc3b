"""How processes of the exchange prove themselves to one another on the ops ports: `x-pincex-service`.

The value is `<name>.<unix ms>.<hex HMAC-SHA256 of "<name>.<unix ms>">`, keyed with a key derived from JWT_SECRET, which
all of them share and nobody else knows. It is good for WINDOW_MS around its time. The edge strips it from outside.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from exchange.runtime.clock import Clock
from exchange.runtime.config import Secret
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.principal import OPERATOR, Principal

SERVICE_KEY: Final = "x-pincex-service"
WINDOW_MS: Final = 30_000
_FORM: Final = re.compile(r"([a-z0-9-]{1,64})\.([0-9]{1,16})\.([0-9a-f]{64})", re.ASCII)
_ROLES: Final = frozenset({OPERATOR})


class ServiceTokens:
    """Mints and verifies them with one secret."""

    def __init__(self, secret: Secret, clock: Clock) -> None:
        derivation = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"pincex service token 1")
        self._key = derivation.derive(secret.reveal().encode())
        self._clock = clock

    def mint(self, name: str) -> str:
        """The header's value for a service of this name, such as `auth-service`, good from now on for WINDOW_MS."""
        text = f"{name}.{self._clock.time_ns() // 1_000_000}"
        value = f"{text}.{self._signature(text)}"
        assert _FORM.fullmatch(value) is not None, "the name of a service is 1 to 64 of a-z 0-9 -"
        return value

    def verify(self, value: str | bytes) -> Principal:
        """Return the service as a principal with the role operator. Raises ServiceError TOKEN_REFUSED."""
        found = _FORM.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise _refused("has another form")
        name, milliseconds, signature = found.groups()
        if not hmac.compare_digest(signature, self._signature(f"{name}.{milliseconds}")):
            raise _refused("is not signed by a service of this exchange")
        if abs(self._clock.time_ns() // 1_000_000 - int(milliseconds)) > WINDOW_MS:
            raise _refused("is too old, or clocks differ")
        return Principal(account=name, roles=_ROLES, source="service")

    def _signature(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def _refused(why: str) -> ServiceError:
    return ServiceError(ErrorReason.TOKEN_REFUSED, f"{SERVICE_KEY} {why}")

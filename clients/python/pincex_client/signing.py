"""Signs requests with an API key, for REST and for gRPC; `docs/SIGNING.md` has the string that is signed, and test vectors.

    signer = HmacSigner("ak_...", base64.b64decode(secret))
    headers = signer.rest_headers("POST", "/api/v1/orders", body)

A key itself is never sent as a bearer token: each request is signed, or one signed call of `ExchangeApiKey` gives a token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from pincex_client.transport import Metadata

API_KEY: Final = "x-api-key"
TIMESTAMP: Final = "x-pincex-timestamp"
NONCE: Final = "x-pincex-nonce"
SIGNATURE: Final = "x-pincex-signature"
CONTENT_SHA256: Final = "x-pincex-content-sha256"
# What stands in the place of the hash for methods whose requests are a stream.
STREAM: Final = "stream"

_SECRET_BYTES: Final = 32
_NONCE_BYTES: Final = 16


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _new_nonce() -> str:
    return secrets.token_urlsafe(_NONCE_BYTES)


class RequestSigner(ABC):
    """Makes the headers of signed requests. Each has a time and a nonce of its own: sign again for each attempt.

    `offset_ms` is added to this machine's clock; `follow` sets it from the server's. Clock and nonces are arguments for tests.
    """

    first_line: str

    def __init__(
        self, api_key: str, *, clock_ms: Callable[[], int] = _now_ms, nonce: Callable[[], str] = _new_nonce
    ) -> None:
        self.api_key = api_key
        self.offset_ms = 0
        self._clock_ms = clock_ms
        self._nonce = nonce

    def __repr__(self) -> str:
        """Without the secret: it ends up in logs."""
        return f"{type(self).__name__}({self.api_key!r})"

    def follow(self, server_ms: int) -> None:
        """Take the server's time (`GetServerTime`, or `server_time` of a refusal) as what is now."""
        self.offset_ms = server_ms - self._clock_ms()

    def rest_headers(self, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        """Headers for a REST request; `path` has its query and is spelled exactly as it is sent."""
        return self._headers(method, path, hashlib.sha256(body).hexdigest())

    def grpc_headers(self, path: str, request: bytes | None) -> Metadata:
        """Headers for a call of `/package.Service/Method` with this serialised request; None: its requests are a stream."""
        content = STREAM if request is None else hashlib.sha256(request).hexdigest()
        return (*self._headers("POST", path, content).items(), (CONTENT_SHA256, content))

    def _headers(self, method: str, path: str, content: str) -> dict[str, str]:
        timestamp, nonce = str(self._clock_ms() + self.offset_ms), self._nonce()
        signed = f"{self.first_line}\n{timestamp}\n{nonce}\n{method}\n{path}\n{content}"
        signature = base64.b64encode(self._sign(signed.encode())).decode("ascii")
        return {API_KEY: self.api_key, TIMESTAMP: timestamp, NONCE: nonce, SIGNATURE: signature}

    @abstractmethod
    def _sign(self, signed: bytes) -> bytes:
        """The proof."""


class HmacSigner(RequestSigner):
    """With the secret that the exchange showed when the key was made. Raises ValueError where it is not 32 bytes."""

    first_line = "PINCEX1-HMAC-SHA256"

    def __init__(
        self,
        api_key: str,
        secret: bytes,
        *,
        clock_ms: Callable[[], int] = _now_ms,
        nonce: Callable[[], str] = _new_nonce,
    ) -> None:
        super().__init__(api_key, clock_ms=clock_ms, nonce=nonce)
        if len(secret) != _SECRET_BYTES:
            raise ValueError(f"the secret of an API key has {_SECRET_BYTES} bytes")
        self._secret = secret

    def _sign(self, signed: bytes) -> bytes:
        return hmac.digest(self._secret, signed, "sha256")


class Ed25519Signer(RequestSigner):
    """With the private half of the pair whose public half the exchange has. Raises ValueError where it is not 32 bytes."""

    first_line = "PINCEX1-ED25519"

    def __init__(
        self,
        api_key: str,
        private_key: bytes,
        *,
        clock_ms: Callable[[], int] = _now_ms,
        nonce: Callable[[], str] = _new_nonce,
    ) -> None:
        super().__init__(api_key, clock_ms=clock_ms, nonce=nonce)
        self._private_key = Ed25519PrivateKey.from_private_bytes(private_key)

    @property
    def public_key(self) -> str:
        """What `CreateApiKey` takes: base64 of the public half."""
        return base64.b64encode(self._private_key.public_key().public_bytes_raw()).decode("ascii")

    def _sign(self, signed: bytes) -> bytes:
        return self._private_key.sign(signed)


def decode_key(text: str) -> bytes:
    """The 32 bytes of a secret or private key in base64. Raises ValueError, without repeating it."""
    try:
        data = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        data = b""
    if len(data) != _SECRET_BYTES:
        raise ValueError(f"not base64 of {_SECRET_BYTES} bytes") from None
    return data

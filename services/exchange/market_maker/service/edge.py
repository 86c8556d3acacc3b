"""The public edge, as every customer of the exchange uses it: one channel, and who we are on each call."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc.aio

from exchange.market_maker.exchange import Away
from exchange.runtime.internal_client import reason_of
from pincex.auth.v1 import auth_service_pb2, auth_service_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

    Metadata = tuple[tuple[str, str], ...]

CALL_S: Final = 2.0
# Between two exchanges of the key for a token: refusals end up in the security log.
AGAIN_S: Final = 1.0
DEVELOPMENT_ACCOUNT: Final = "market-maker"
_EXCHANGE: Final = "/pincex.auth.v1.AuthService/ExchangeApiKey"
_FIRST_LINE: Final = "PINCEX1-HMAC-SHA256"
# A token is renewed when less than this part of its life is left.
_RENEW_BELOW: Final = 0.5
# TOKEN_REFUSED: the key that signed it was retired.
_STALE: Final = frozenset({"TOKEN_EXPIRED", "CREDENTIAL_REVOKED", "TOKEN_REFUSED"})
_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class Credentials(Protocol):
    """Proves who calls."""

    @property
    def account(self) -> str:
        """Whose orders they are; empty before the first call of `metadata`."""
        ...

    async def metadata(self) -> Metadata:
        """For a call that is made now. Raises Away."""
        ...

    def refused(self) -> None:
        """They were refused for their age."""
        ...


class DevelopmentAccount:
    """The development profile takes a name for a proof."""

    account = DEVELOPMENT_ACCOUNT

    async def metadata(self) -> Metadata:
        """The name."""
        return (("x-pincex-account", self.account),)

    def refused(self) -> None:
        """A name has no age."""


class KeyFile:
    """An API key in a file, `{"api_key": "ak_...", "secret": <base64>}`: it signs the exchange for a token, and the token makes
    the calls. The file is read for each exchange: it may come later than we, and be replaced.
    """

    def __init__(self, file: Path, channel: grpc.aio.Channel) -> None:
        self._file = file
        self._stub: Any = auth_service_pb2_grpc.AuthServiceStub(channel)
        self._token = ""
        # On the monotonic clock: those of client and exchange may differ.
        self._renew_at = self._dies_at = 0.0
        self._again_at = 0.0
        self._lock = asyncio.Lock()
        self.account = ""

    async def metadata(self) -> Metadata:
        """The token, renewed where little of its life is left; if that fails, it is used on while it lives. Raises Away."""
        async with self._lock:
            now = time.monotonic()
            if now >= max(self._renew_at, self._again_at):
                self._again_at = now + AGAIN_S
                try:
                    await self._renew()
                except Away:
                    if now >= self._dies_at:
                        raise
        if now >= self._dies_at:
            raise Away("the API key got no token a moment ago")
        return (("authorization", f"Bearer {self._token}"),)

    def refused(self) -> None:
        """Another token next time."""
        self._renew_at = self._dies_at = 0.0

    async def _renew(self) -> None:
        api_key, secret = await asyncio.to_thread(read_key, self._file)
        request = auth_service_pb2.ExchangeApiKeyRequest()
        signed = signed_headers(api_key, secret, _EXCHANGE, request.SerializeToString())
        try:
            tokens = await self._stub.ExchangeApiKey(request, metadata=signed, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise Away(f"the API key gets no token: {reason_of(error)}") from error
        self._token, self.account = tokens.access_token, tokens.account
        life = max(tokens.access_expire_time.seconds - time.time(), 0.0)
        self._renew_at = time.monotonic() + life * _RENEW_BELOW
        self._dies_at = time.monotonic() + life


def read_key(file: Path) -> tuple[str, bytes]:
    """Public id and secret. Raises Away."""
    try:
        found = json.loads(file.read_text())
        return str(found["api_key"]), base64.b64decode(found["secret"], validate=True)
    except FileNotFoundError:
        raise Away(f"there is no API key in {file} yet") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        # Not what it holds: it is a secret.
        raise Away(f"{file} is no API key: {type(error).__name__}") from None


def signed_headers(api_key: str, secret: bytes, path: str, body: bytes) -> Metadata:
    """The headers of a signed gRPC call that is made now."""
    timestamp, nonce = str(time.time_ns() // 1_000_000), secrets.token_urlsafe(16)
    return signature_headers(api_key, secret, path, body, timestamp, nonce)


def signature_headers(api_key: str, secret: bytes, path: str, body: bytes, timestamp: str, nonce: str) -> Metadata:
    """As docs/SIGNING.md says."""
    content = hashlib.sha256(body).hexdigest()
    text = f"{_FIRST_LINE}\n{timestamp}\n{nonce}\nPOST\n{path}\n{content}"
    signature = base64.b64encode(hmac.digest(secret, text.encode(), "sha256")).decode("ascii")
    return (
        ("x-api-key", api_key),
        ("x-pincex-timestamp", timestamp),
        ("x-pincex-nonce", nonce),
        ("x-pincex-signature", signature),
        ("x-pincex-content-sha256", content),
    )


class Edge:
    """Calls as one customer."""

    def __init__(self, channel: grpc.aio.Channel, credentials: Credentials) -> None:
        self.channel = channel
        self._credentials = credentials

    @property
    def account(self) -> str:
        """Whose orders they are; empty before the first call."""
        return self._credentials.account

    async def metadata(self) -> Metadata:
        """For streams. Raises Away."""
        return await self._credentials.metadata()

    async def call(self, method: Any, request: Any, *, public: bool = False) -> Any:
        """A unary call; a public one needs nobody. Raises Away, and Refused where the exchange says why."""
        try:
            return await method(request, metadata=() if public else await self.metadata(), timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise self.away(error) from error

    def away(self, error: grpc.aio.AioRpcError) -> Refused:
        """What a failed call or stream comes to."""
        reason = reason_of(error)
        if reason in _STALE:
            self._credentials.refused()
        return Refused(reason, error.details() or "")


class Refused(Away):
    """The exchange refused; `reason` is the name of an ErrorReason, or of a status where there is none."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


def open_edge(target: str, key_file: Path | None) -> Edge:
    """A channel to the public edge; without a file as the account of the development profile."""
    channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
    return Edge(channel, DevelopmentAccount() if key_file is None else KeyFile(key_file, channel))

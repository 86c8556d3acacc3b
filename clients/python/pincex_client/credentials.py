"""Who a client is, and the headers that prove it: a development account, a token, a log-in, or an API key.

`ExchangeClient(credentials=...)` asks for the headers before each call and at each connection of a stream. Log-ins and keys
renew their access tokens by themselves, before they expire; many callers that wait share one renewal.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from pincex.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from pincex_client.errors import ExchangeError, decode_error
from pincex_client.transport import new_id, with_request_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from pincex.auth.v1 import types_pb2
    from pincex_client.signing import RequestSigner
    from pincex_client.transport import Metadata

# A token is renewed when less than this part of its life is left.
RENEW_BELOW = 0.5
CALL_TIMEOUT_S = 10.0
# What the exchange says of a token that has had its time, or whose signing key has (TOKEN_REFUSED): with a new one the same
# call may pass.
STALE_REASONS = frozenset({"TOKEN_EXPIRED", "CREDENTIAL_REVOKED", "TOKEN_REFUSED"})


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a log-in gave. Times are seconds since 1970 UTC; `refresh_token` is empty where a key was exchanged."""

    access_token: str
    access_expires_at: float
    refresh_token: str
    session_id: str
    user_id: str
    account: str

    def __repr__(self) -> str:
        """Without the tokens: it ends up in logs."""
        return f"TokenSet(user_id={self.user_id!r}, account={self.account!r}, session_id={self.session_id!r})"


def token_set(tokens: types_pb2.Tokens) -> TokenSet:
    """From the wire."""
    return TokenSet(
        access_token=tokens.access_token,
        access_expires_at=tokens.access_expire_time.seconds + tokens.access_expire_time.nanos / 1e9,
        refresh_token=tokens.refresh_token,
        session_id=tokens.session_id,
        user_id=tokens.user_id,
        account=tokens.account,
    )


class Credentials(ABC):
    """Proves who calls."""

    @abstractmethod
    async def metadata(self) -> Metadata:
        """Headers for a call that is made now. Raises ExchangeError where they cannot be had."""

    def attach(self, channel: grpc.aio.Channel) -> None:
        """Take the client's channel to the public edge, over which tokens are renewed."""
        del channel

    def outdated(self, error: ExchangeError, used: Metadata) -> bool:
        """Whether `used` was refused for its age, and `metadata()` gives other headers from now on."""
        del error, used
        return False


class Fixed(Credentials):
    """Always the same headers: nobody, an account of the development profile, or a token that somebody else renews."""

    def __init__(self, *, account: str | None = None, token: str | None = None) -> None:
        headers = (("x-pincex-account", account), ("authorization", f"Bearer {token}" if token else None))
        self._metadata: Metadata = tuple((key, value) for key, value in headers if value)

    async def metadata(self) -> Metadata:
        """The same each time."""
        return self._metadata


class _Renewed(Credentials):
    """Tokens that are renewed before they expire."""

    def __init__(self, tokens: TokenSet | None, on_change: Callable[[TokenSet], None] | None) -> None:
        self._tokens = tokens
        self._on_change = on_change
        self._stub: auth_service_pb2_grpc.AuthServiceAsyncStub | None = None
        self._lock = asyncio.Lock()
        # By the monotonic clock: the wall clocks of client and exchange may differ by more than a token's life.
        self._renew_at = 0.0
        self._dies_at = 0.0
        if tokens is not None:
            self._count_down(tokens, time.time())

    def __repr__(self) -> str:
        """Without secrets."""
        return f"{type(self).__name__}({self._tokens!r})"

    @property
    def tokens(self) -> TokenSet | None:
        """The present ones."""
        return self._tokens

    def attach(self, channel: grpc.aio.Channel) -> None:
        """The first channel is taken."""
        if self._stub is None:
            self._stub = auth_service_pb2_grpc.AuthServiceStub(channel)

    async def metadata(self) -> Metadata:
        """The access token, renewed where little of its life is left.

        If the renewal fails for a passing reason, a token that is still good is used on.
        """
        if self._tokens is None or time.monotonic() >= self._renew_at:
            async with self._lock:
                if self._tokens is None or time.monotonic() >= self._renew_at:
                    await self._renew_or_go_on()
        assert self._tokens is not None
        return _bearer(self._tokens)

    def outdated(self, error: ExchangeError, used: Metadata) -> bool:
        """A stale token is dropped once, however many calls were made with it."""
        if error.reason not in STALE_REASONS or self._tokens is None or not used:
            return False
        if used == _bearer(self._tokens):
            self._renew_at = self._dies_at = 0.0
        return True

    async def _renew_or_go_on(self) -> None:
        try:
            tokens = await self._renew()
        except ExchangeError as error:
            if self._tokens is None or not error.transient or time.monotonic() >= self._dies_at:
                raise
            return
        self._tokens = tokens
        self._count_down(tokens, time.time())
        if self._on_change is not None:
            self._on_change(tokens)

    def _count_down(self, tokens: TokenSet, now: float) -> None:
        left = max(0.0, tokens.access_expires_at - now)
        self._dies_at = time.monotonic() + left
        self._renew_at = time.monotonic() + left * RENEW_BELOW

    @abstractmethod
    async def _renew(self) -> TokenSet:
        """Fetch new tokens."""

    @property
    def _auth(self) -> auth_service_pb2_grpc.AuthServiceAsyncStub:
        assert self._stub is not None, "attached by the client"
        return self._stub


class LogIn(_Renewed):
    """A log-in session: its refresh token gives new tokens, once.

    `on_change` is called with each new set before it is used: a refresh token that is lost ends the session.
    """

    def __init__(self, tokens: TokenSet, on_change: Callable[[TokenSet], None] | None = None) -> None:
        super().__init__(tokens, on_change)

    async def _renew(self) -> TokenSet:
        assert self._tokens is not None
        request = auth_service_pb2.RefreshTokensRequest(refresh_token=self._tokens.refresh_token)
        request_id = new_id("r")
        try:
            answer = await self._auth.RefreshTokens(
                request, timeout=CALL_TIMEOUT_S, metadata=with_request_id((), request_id)
            )
        except grpc.aio.AioRpcError as failure:
            raise decode_error(failure, request_id) from None
        return token_set(answer)


class ApiKey(_Renewed):
    """An API key: it signs the exchange for an access token, and the token makes the calls.

    `on_change` may keep tokens for the next process, given to it as `tokens`. A clock that is off is set by the exchange's.
    """

    def __init__(
        self,
        signer: RequestSigner,
        *,
        tokens: TokenSet | None = None,
        on_change: Callable[[TokenSet], None] | None = None,
    ) -> None:
        super().__init__(tokens, on_change)
        self._signer = signer

    async def _renew(self) -> TokenSet:
        try:
            return await self._exchange()
        except ExchangeError as error:
            server_time = error.metadata.get("server_time", "")
            if error.reason != "TIMESTAMP_OUT_OF_WINDOW" or not server_time.isdigit():
                raise
            self._signer.follow(int(server_time))
        return await self._exchange()

    async def _exchange(self) -> TokenSet:
        request = auth_service_pb2.ExchangeApiKeyRequest()
        signed = self._signer.grpc_headers("/pincex.auth.v1.AuthService/ExchangeApiKey", request.SerializeToString())
        request_id = new_id("r")
        try:
            answer = await self._auth.ExchangeApiKey(
                request, timeout=CALL_TIMEOUT_S, metadata=with_request_id(signed, request_id)
            )
        except grpc.aio.AioRpcError as failure:
            raise decode_error(failure, request_id) from None
        return token_set(answer)


def _bearer(tokens: TokenSet) -> Metadata:
    return (("authorization", f"Bearer {tokens.access_token}"),)

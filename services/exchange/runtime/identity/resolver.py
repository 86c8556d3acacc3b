"""Who makes a call: by access token, by the header of another service, else as the profile has it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, Protocol

from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.identity.keys import SigningKeys
from exchange.runtime.identity.revocations import Revocations
from exchange.runtime.identity.service_token import SERVICE_KEY, ServiceTokens
from exchange.runtime.identity.store import STORE_ERRORS
from exchange.runtime.identity.verifier import TokenVerifier, UnknownKey, refused
from exchange.runtime.principal import Metadata, Principal, PrincipalResolver

AUTHORIZATION_KEY: Final = "authorization"
API_KEY_KEY: Final = "x-api-key"
_SCHEME: Final = "bearer "


class Tokens(Protocol):
    """Knows whose an access token is, and whether it still counts."""

    def resolve(self, token: str) -> Principal | Awaitable[Principal]:
        """Return its principal. Raises ServiceError TOKEN_REFUSED, TOKEN_EXPIRED, CREDENTIAL_REVOKED, AUTH_UNAVAILABLE."""
        ...

    def why_void(self, principal: Principal) -> ErrorReason.ValueType | None:
        """Why the principal of a token counts no more, None while it does."""
        ...


class NoTokens:
    """Of an exchange without a database: it can check no token, so it takes none."""

    def resolve(self, token: str) -> Principal:  # noqa: ARG002 - the protocol's form
        """Raise ServiceError TOKEN_REFUSED."""
        raise refused("this exchange runs in memory, without an auth service: it takes no tokens")

    def why_void(self, principal: Principal) -> None:
        """Nobody came by token."""


class CheckedTokens:
    """Tokens that are verified here, against what was revoked."""

    def __init__(self, keys: SigningKeys, revocations: Revocations, clock: Clock) -> None:
        self._keys = keys
        self._revocations = revocations
        self._clock = clock
        self.verifier = TokenVerifier(keys, clock)

    def resolve(self, token: str) -> Principal | Awaitable[Principal]:
        """See `Tokens`; only a token of a key that is not known yet has to be awaited."""
        try:
            principal = self.verifier.verify(token)
        except UnknownKey as unknown:
            if self._revocations.is_retired(unknown.key_id):
                # Known no more: a client that renews its token gets one of another key.
                raise ServiceError(ErrorReason.CREDENTIAL_REVOKED) from None
            return self._after_asking(token, unknown.key_id)
        return self._counting(principal)

    def why_void(self, principal: Principal) -> ErrorReason.ValueType | None:
        """See `Tokens`. A stream goes on when the access token that opened it expires, for as long as what the token
        stood for lives: its session or key.
        """
        if not self._revocations.is_current():
            return ErrorReason.AUTH_UNAVAILABLE
        if self._revocations.is_void(principal):
            return ErrorReason.CREDENTIAL_REVOKED
        if principal.ends_at and self._clock.time_ns() >= principal.ends_at * 1_000_000_000:
            return ErrorReason.CREDENTIAL_REVOKED
        return None

    def _counting(self, principal: Principal) -> Principal:
        reason = self.why_void(principal)
        if reason is not None:
            raise ServiceError(reason)
        return principal

    async def _after_asking(self, token: str, key_id: str) -> Principal:
        try:
            if await self._keys.find(key_id) is None:
                raise refused("the token is signed with a key that is not of this exchange")
        except STORE_ERRORS:
            raise ServiceError(ErrorReason.AUTH_UNAVAILABLE) from None
        try:
            return self._counting(self.verifier.verify(token))
        except UnknownKey:
            raise refused("the token is signed with a key that was withdrawn") from None


class TokenResolver:
    """Finds out who makes a call. A credential that is given is checked, and never ignored in favour of another way in.

    `services` is for ops ports alone: None elsewhere.
    """

    def __init__(self, tokens: Tokens, services: ServiceTokens | None, others: PrincipalResolver) -> None:
        """`others` knows those who give no credential: the development profile's, or nobody."""
        self._tokens = tokens
        self._services = services
        self._others = others

    def resolve(self, peer: str, metadata: Metadata) -> Principal | Awaitable[Principal]:
        """See `PrincipalResolver`."""
        bearer: str | None = None
        service: str | bytes | None = None
        signed = False
        for key, value in metadata:
            if key == AUTHORIZATION_KEY:
                bearer = _bearer_token(value, bearer)
            elif key == SERVICE_KEY:
                if service is not None:
                    raise refused(f"{SERVICE_KEY} is given twice")
                service = value
            elif key == API_KEY_KEY:
                signed = True
        if service is not None:
            if self._services is None or bearer is not None:
                raise refused(f"{SERVICE_KEY} is taken on the ops ports only, alone, where JWT_SECRET is set")
            return self._services.verify(service)
        if bearer is not None:
            return self._tokens.resolve(bearer)
        if signed:
            # The edge turns a good signature into a token: this call has not been there.
            raise ServiceError(ErrorReason.UNAUTHENTICATED, "signed calls are taken by the edge: connect to it")
        return self._others.resolve(peer, metadata)

    def why_void(self, principal: Principal) -> ErrorReason.ValueType | None:
        """See `PrincipalResolver`."""
        return self._tokens.why_void(principal) if principal.user else None


def _bearer_token(value: str | bytes, earlier: str | None) -> str:
    """The token of an authorization header (RFC 6750). Raises ServiceError TOKEN_REFUSED."""
    if earlier is not None:
        raise refused("authorization is given twice")
    if not isinstance(value, str) or value[: len(_SCHEME)].lower() != _SCHEME:
        raise refused("authorization must be: Bearer <access token>")
    return value[len(_SCHEME) :].strip(" ")

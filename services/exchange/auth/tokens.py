"""Access tokens: JWTs (RFC 7519) signed with ES256, of the type at+jwt (RFC 9068)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from exchange.auth.metrics import AuthMetrics
from exchange.auth.users import User
from exchange.runtime.clock import Clock
from exchange.runtime.identity.keys import ALGORITHM
from exchange.runtime.identity.verifier import TOKEN_TYPE
from exchange.runtime.principal import STAFF_ROLES

# Of both `iss` and `aud`: the exchange speaks to itself.
EXCHANGE: Final = "pincex"

USER_SCOPES: Final = ("read", "trade", "withdraw", "manage")
ADMIN_SCOPE: Final = "admin"
# The claim of a token that was had for an API key by ExchangeApiKey.
EXCHANGED: Final = "xch"
SCOPES: Final = (*USER_SCOPES, ADMIN_SCOPE)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says. Exactly one of `session`, `api_key` and `certificate` is what it stands for.

    `ends_at`: when that is over, in seconds since 1970, 0: never. The limits are a key's own, 0: those of the tier.
    `exchanged`: the client holds the token itself, and gets no other for it.
    """

    user: User
    account: str
    scopes: tuple[str, ...]
    session: str = ""
    api_key: str = ""
    certificate: str = ""
    ends_at: int = 0
    max_orders_per_second: int = 0
    max_open_orders: int = 0
    exchanged: bool = False


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A signed token, when it expires, in seconds since 1970, and the key that signed it."""

    text: str
    expires_at: int
    key_id: str


class Signer(Protocol):
    """Knows the key that signs now."""

    def signing_key(self) -> tuple[str, EllipticCurvePrivateKey]:
        """Its id and its private half. Raises ServiceError AUTH_UNAVAILABLE while there is none."""
        ...

    def is_known(self, key_id: str) -> bool:
        """Whether what this key signed may still be good."""
        ...


class TokenMaker:
    """Makes access tokens; nothing about them is stored."""

    def __init__(self, signer: Signer, clock: Clock, metrics: AuthMetrics, lifetime_s: int) -> None:
        self._signer = signer
        self._clock = clock
        self._metrics = metrics
        self._lifetime_s = lifetime_s

    def is_good(self, token: AccessToken) -> bool:
        """Whether the key that signed it was not retired since."""
        return self._signer.is_known(token.key_id)

    def make(self, grant: Grant) -> AccessToken:
        """Sign what is granted. It expires with what it stands for, if that is sooner."""
        kinds = {"sid": grant.session, "key": grant.api_key, "crt": grant.certificate}
        ((kind, subject),) = ((name, value) for name, value in kinds.items() if value)
        now = self._clock.time_ns() // 1_000_000_000
        expires_at = now + self._lifetime_s
        if grant.ends_at:
            expires_at = min(expires_at, grant.ends_at)
        user = grant.user
        claims = {
            "iss": EXCHANGE,
            "aud": EXCHANGE,
            "sub": str(user.user_id),
            "acc": grant.account,
            kind: subject,
            "scp": list(grant.scopes),
            "rol": list(user.roles),
            "tier": user.tier,
            "ops": grant.max_orders_per_second,
            "opn": grant.max_open_orders,
            "gen": user.generation,
            "sxp": grant.ends_at,
            "iat": now,
            "exp": expires_at,
            "jti": secrets.token_urlsafe(12),
        }
        if grant.exchanged:
            claims[EXCHANGED] = True
        key_id, key = self._signer.signing_key()
        text = jwt.encode(claims, key, ALGORITHM, headers={"kid": key_id, "typ": TOKEN_TYPE})
        self._metrics.tokens.labels(kind).inc()
        return AccessToken(text, expires_at, key_id)


def scopes_of(user: User) -> tuple[str, ...]:
    """All that a user may do; `admin` for those who have a role of the staff."""
    return SCOPES if STAFF_ROLES.intersection(user.roles) else USER_SCOPES

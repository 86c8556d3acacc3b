"""Users as services see them, without an auth service: a signing key in its table, tokens signed with it, revocations.

def test_something(database):
    issuer = Issuer(database.auth_url)
    token = issuer.token(user="100001", scopes=("read", "trade"))
    issuer.revoke("session", issuer.session_of("100001"))
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import jwt
import psycopg
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from psycopg.types.json import Jsonb

USER_SCOPES = ("read", "trade", "withdraw", "manage")
_NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair as the auth service has it."""

    key_id: str = field(default_factory=lambda: f"test-{next(_NUMBERS)}-{time.time_ns()}")
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def public_pem(self) -> bytes:
        """What an attacker has, too."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def public_jwk(self) -> dict[str, Any]:
        """As the JWKS shows it."""
        jwk: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**jwk, "kid": self.key_id, "alg": "ES256", "use": "sig"}


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Metadata of a call with this token."""
    return (("authorization", f"Bearer {token}"),)


class Issuer:
    """Signs tokens with a key that every server of the database knows, and revokes them."""

    def __init__(self, auth_url: str) -> None:
        """`auth_url` is of the role auth_user; a database that the migrations have been through."""
        self._url = auth_url
        self.key = self.add_key()

    def add_key(self) -> SigningKey:
        """Make a key known; tokens are signed with it from `use` on."""
        key = SigningKey()
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO auth_signing_keys (key_id, public_jwk, private_key, signs_from) "
                "VALUES (%s, %s, %s, clock_timestamp())",
                (key.key_id, Jsonb(key.public_jwk), b"not needed here"),
            )
        return key

    def rotate(self) -> SigningKey:
        """Sign with a new key from now on; the old one is retired, its tokens stay good. Returns the old one."""
        old, self.key = self.key, self.add_key()
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "UPDATE auth_signing_keys SET retired_at = clock_timestamp() WHERE key_id = %s", (old.key_id,)
            )
        return old

    @staticmethod
    def session_of(user: str) -> str:
        """The session that a user's tokens stand for, unless another is given."""
        return f"s-{user}"

    def claims(
        self,
        user: str = "100001",
        *,
        account: str = "",
        session: str = "",
        api_key: str = "",
        certificate: str = "",
        scopes: tuple[str, ...] = USER_SCOPES,
        roles: tuple[str, ...] = ("trader",),
        expires_in_s: int = 300,
        **others: Any,
    ) -> dict[str, Any]:
        """What a token of the auth service says; `others` are claims by their own names (`gen`, `sxp`, `tier`...)."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": "pincex",
            "aud": "pincex",
            "sub": user,
            "acc": account or user,
            "scp": list(scopes),
            "rol": list(roles),
            "tier": "standard",
            "ops": 0,
            "opn": 0,
            "gen": 1,
            "sxp": 0,
            "iat": now,
            "exp": now + expires_in_s,
            "jti": f"j-{next(_NUMBERS)}",
        }
        if api_key:
            claims["key"] = api_key
        elif certificate:
            claims["crt"] = certificate
        else:
            claims["sid"] = session or self.session_of(user)
        return {**claims, **others}

    def token(self, user: str = "100001", **claims: Any) -> str:
        """An access token; see `claims`."""
        return self.sign(self.claims(user, **claims))

    def staff_token(self, *roles: str, user: str = "100999", **claims: Any) -> str:
        """Of somebody who works for the exchange, with the scope that lets roles count."""
        return self.token(user, roles=("trader", *roles), scopes=(*USER_SCOPES, "admin"), **claims)

    def sign(self, claims: dict[str, Any], key: SigningKey | None = None, **header: Any) -> str:
        """Sign any claims; `header` adds to or replaces parts of the header."""
        key = key if key is not None else self.key
        headers = {"kid": key.key_id, "typ": "at+jwt", **header}
        return jwt.encode(claims, key.private, "ES256", headers=headers)

    def revoke(
        self,
        kind: str,
        subject: str,
        *,
        generation: int = 0,
        user: str = "100001",
        accounts: tuple[str, ...] = (),
        cancel_orders: bool = False,
    ) -> int:
        """Void a session (kind `session`), a key (`api_key`) or all tokens of a user below a generation (`user`)."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            row = connection.execute(
                "SELECT auth_revoke(%s, %s, %s, %s, %s, %s, %s)",
                (kind, subject, generation, user, list(accounts), cancel_orders, "a test"),
            ).fetchone()
        assert row is not None
        return int(row[0])

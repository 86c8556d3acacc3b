"""Access tokens: JWTs (RFC 7519, RFC 9068) that the auth service signs with ES256, and what they say of their holder.

Nothing but ES256 with a key from our own table is ever tried, whatever a token says of itself: `alg: none`, an HMAC keyed
with the public key and keys that come inside a token are refused before anything is computed.
"""

from __future__ import annotations

import binascii
import hashlib
from collections import OrderedDict
from typing import Annotated, Final, Literal

import jwt
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.identity.keys import ALGORITHM, SigningKeys
from exchange.runtime.principal import ADMIN, STAFF_ROLES, Principal

TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - a media type
# Clocks of two machines of the exchange may differ by this.
LEEWAY_S: Final = 5
MAX_TOKEN_CHARACTERS: Final = 4_096
MAX_CACHED_TOKENS: Final = 20_000
MAX_CACHED_HEADERS: Final = 64

_HEADER_KEYS: Final = frozenset({"alg", "kid", "typ"})
_ES256: Final = ECDSA(SHA256())
_COORDINATE_BYTES: Final = 32

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Names = Annotated[tuple[_Name, ...], msgspec.Meta(max_length=32)]
_Subject = Annotated[str, msgspec.Meta(max_length=512)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class UnknownKey(Exception):
    """The token names a key that is not known here (yet)."""

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id


class _Claims(msgspec.Struct, frozen=True):
    """What a token of ours says; other claims say nothing to us."""

    iss: Literal["pincex"]
    aud: Literal["pincex"]
    sub: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,19}$")]
    acc: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    scp: _Names
    rol: _Names
    tier: _Name
    gen: _Count
    iat: _Count
    exp: _Count
    sid: _Subject = ""
    key: _Subject = ""
    crt: _Subject = ""
    ops: _Count = 0
    opn: _Count = 0
    sxp: _Count = 0


_CLAIMS: Final = msgspec.json.Decoder(_Claims)


class _Known(msgspec.Struct, frozen=True, gc=False):
    """A token whose signature was good."""

    principal: Principal
    expires_at: int
    key_id: str
    key: EllipticCurvePublicKey


class TokenVerifier:
    """Checks tokens; a token's signature once. What it refuses is not remembered, so refusals take no memory."""

    def __init__(self, keys: SigningKeys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        # By the SHA-256 of the token: the tokens themselves are not kept.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        # All tokens of a key begin with the same header: read once, and kept only of tokens whose signature was good.
        self._key_ids: dict[str, str] = {}

    @property
    def cached(self) -> int:
        """How many tokens are remembered."""
        return len(self._known)

    def verify(self, token: str) -> Principal:
        """Return whose token it is. Revocations are not looked at here.

        Raises ServiceError TOKEN_REFUSED or TOKEN_EXPIRED; UnknownKey where the key is not known.
        """
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise refused("the token has another form")
        digest = hashlib.sha256(token.encode("ascii")).digest()
        known = self._known.get(digest)
        if known is not None and self._keys.get(known.key_id) is known.key:
            self._known.move_to_end(digest)
        else:
            known = self._check(token)
            self._remember(digest, known)
        if self._clock.time_ns() >= (known.expires_at + LEEWAY_S) * 1_000_000_000:
            del self._known[digest]
            raise ServiceError(ErrorReason.TOKEN_EXPIRED)
        return known.principal

    def _remember(self, digest: bytes, known: _Known) -> None:
        self._known[digest] = known
        if len(self._known) > MAX_CACHED_TOKENS:
            self._known.popitem(last=False)

    def _check(self, token: str) -> _Known:
        head = token.partition(".")[0]
        try:
            key_id = self._key_ids.get(head) or _key_id(token)
            key = self._keys.get(key_id)
            if key is None:
                raise UnknownKey(key_id)
            claims = _CLAIMS.decode(_signed_payload(token, key))
        # msgspec.DecodeError is a ValueError, as what base64 and UTF-8 say; RecursionError is for JSON that is deep.
        except (jwt.PyJWTError, InvalidSignature, ValueError, RecursionError) as error:
            raise refused() from error
        if claims.iat > self._clock.time_ns() // 1_000_000_000 + LEEWAY_S:
            raise refused("the token is from the future")
        if len(self._key_ids) >= MAX_CACHED_HEADERS:
            self._key_ids.clear()
        self._key_ids[head] = key_id
        return _Known(_principal(claims, key_id), claims.exp, key_id, key)


def _key_id(token: str) -> str:
    """The key that the token's header names. Raises ServiceError TOKEN_REFUSED for a header unlike ours, jwt.PyJWTError."""
    header = jwt.get_unverified_header(token)
    if header.get("alg") != ALGORITHM or header.get("typ") != TOKEN_TYPE or not _HEADER_KEYS.issuperset(header):
        raise refused("the token is of another type")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= 128:
        raise refused("the token names no key")
    return key_id


def _signed_payload(token: str, key: EllipticCurvePublicKey) -> bytes:
    """The payload of a JWS (RFC 7515) that is signed with ES256 (RFC 7518, 3.4) by this key.

    Straight from the standard, since there is one algorithm and the header is known: PyJWT does the same and then looks at
    each character of the token in Python, which doubles the time. Raises InvalidSignature, ValueError.
    """
    signed, _, signature = token.rpartition(".")
    raw = _base64url(signature)
    if len(raw) != 2 * _COORDINATE_BYTES:
        raise ValueError("an ES256 signature is two numbers of 32 bytes")
    r, s = (int.from_bytes(part, "big") for part in (raw[:_COORDINATE_BYTES], raw[_COORDINATE_BYTES:]))
    key.verify(encode_dss_signature(r, s), signed.encode("ascii"), _ES256)
    _head, payload = signed.split(".")
    return _base64url(payload)


def _base64url(text: str) -> bytes:
    """Without padding, and nothing but its alphabet. Raises ValueError."""
    if "+" in text or "/" in text or "=" in text:
        raise ValueError("another alphabet, or padding")
    standard = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
    return binascii.a2b_base64(standard, strict_mode=True)


def refused(why: str | None = None) -> ServiceError:
    """The error TOKEN_REFUSED; `why` never repeats any of the token."""
    return ServiceError(ErrorReason.TOKEN_REFUSED, why)


def _principal(claims: _Claims, key_id: str) -> Principal:
    """Raises ServiceError TOKEN_REFUSED where it does not stand for exactly one thing."""
    if sum(map(bool, (claims.sid, claims.key, claims.crt))) != 1:
        raise refused("the token stands for no session, key or certificate, or for several")
    scopes = frozenset(claims.scp)
    roles = frozenset(claims.rol)
    if ADMIN not in scopes:
        # A key that trades for an operator is a trader's, whoever steals it.
        roles -= STAFF_ROLES
    return Principal(
        account=claims.acc,
        roles=roles,
        source="token" if claims.sid else "api-key" if claims.key else "certificate",
        scopes=scopes,
        user=claims.sub,
        session=claims.sid,
        api_key=claims.key,
        certificate=claims.crt,
        signing_key=key_id,
        generation=claims.gen,
        ends_at=claims.sxp,
        tier=claims.tier,
        max_orders_per_second=claims.ops,
        max_open_orders=claims.opn,
    )

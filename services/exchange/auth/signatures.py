"""What an API key signs, and whether a signature is that of a request. Pure: no clock, no store.

Six lines, joined by a line feed, without one at the end:

    PINCEX1-HMAC-SHA256            or PINCEX1-ED25519
    1795622400000                  milliseconds since 1970 UTC
    4f1c2a                         the nonce
    POST                           the HTTP method
    /api/v1/orders?symbol=BTCUSD   the path with its query, exactly as sent
    e3b0c442...                    hex SHA-256 of the body; over gRPC that of the serialised request message

`docs/SIGNING.md` tells it to clients; the vectors in `docs/signing-vectors.json` hold both ends to it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HMAC_SHA256: Final = "HMAC_SHA256"
ED25519: Final = "ED25519"
ALGORITHMS: Final = (HMAC_SHA256, ED25519)

API_KEY_HEADER: Final = "x-api-key"
TIMESTAMP_HEADER: Final = "x-pincex-timestamp"
NONCE_HEADER: Final = "x-pincex-nonce"
SIGNATURE_HEADER: Final = "x-pincex-signature"
CONTENT_HASH_HEADER: Final = "x-pincex-content-sha256"
# In place of a hash, for gRPC methods whose requests are a stream: they have no one body.
STREAM_CONTENT: Final = "stream"

SECRET_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
_HMAC_BYTES: Final = 32
_ED25519_BYTES: Final = 64
# Base64 of the longest signature; what is longer is none.
MAX_SIGNATURE_LENGTH: Final = 88

_FIRST_LINE: Final = {HMAC_SHA256: "PINCEX1-HMAC-SHA256", ED25519: "PINCEX1-ED25519"}
_API_KEY_FORM: Final = re.compile(r"ak_[A-Za-z0-9]{32}")
_TIMESTAMP_FORM: Final = re.compile(r"[0-9]{13}")
_NONCE_FORM: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HASH_FORM: Final = re.compile(r"[0-9a-f]{64}")
# What is done for a key that does not exist, so that its answer takes as long as another's.
_NOBODY_SECRET: Final = bytes(SECRET_BYTES)
_NOBODY_PUBLIC_KEY: Final = Ed25519PublicKey.from_public_bytes(
    bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")  # RFC 8032, 7.1, TEST 1
)


class MalformedSignature(Exception):
    """A header of a signed request is absent or has another form; the text names it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What the headers of a signed request say, in their proper form; nothing of it is proven yet.

    `algorithm` follows from the signature's length, so that it tells nothing about the key. `timestamp_ms` is Unix time.
    """

    api_key: str
    timestamp_ms: int
    nonce: str
    signature: bytes
    algorithm: str


@dataclass(frozen=True, slots=True)
class Verifier:
    """What proves signatures of one key: the secret of an HMAC key, or the public half of an Ed25519 pair."""

    algorithm: str
    secret: bytes | None = None
    public_key: Ed25519PublicKey | None = None

    def __repr__(self) -> str:
        """Without the secret: it may end up in a traceback."""
        return f"Verifier({self.algorithm})"


# Proves nothing, and takes as long as one that might.
NOBODY: Final = Verifier(algorithm="", secret=_NOBODY_SECRET, public_key=_NOBODY_PUBLIC_KEY)


def hmac_verifier(secret: bytes) -> Verifier:
    """For a key whose secret is 32 bytes. Raises ValueError for another length."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
    return Verifier(algorithm=HMAC_SHA256, secret=secret)


def ed25519_verifier(public_key: bytes) -> Verifier:
    """For a key pair whose public half is 32 bytes. Raises ValueError where they are no public key."""
    return Verifier(algorithm=ED25519, public_key=Ed25519PublicKey.from_public_bytes(public_key))


def read_claim(api_key: str, timestamp: str, nonce: str, signature: str) -> Claim:
    """Read the four headers. Raises MalformedSignature; never repeats a value, a secret may have been put there."""
    if _API_KEY_FORM.fullmatch(api_key) is None:
        raise MalformedSignature(f"{API_KEY_HEADER} must be ak_ and 32 letters and digits")
    if _TIMESTAMP_FORM.fullmatch(timestamp) is None:
        raise MalformedSignature(f"{TIMESTAMP_HEADER} must be milliseconds since 1970 UTC, 13 digits")
    if _NONCE_FORM.fullmatch(nonce) is None:
        raise MalformedSignature(f"{NONCE_HEADER} must be 1 to 64 characters of A-Z a-z 0-9 _ -")
    proof = decode_base64(signature) if len(signature) <= MAX_SIGNATURE_LENGTH else None
    if proof is None or len(proof) not in {_HMAC_BYTES, _ED25519_BYTES}:
        raise MalformedSignature(f"{SIGNATURE_HEADER} must be base64 of 32 bytes (HMAC-SHA256) or 64 bytes (Ed25519)")
    algorithm = HMAC_SHA256 if len(proof) == _HMAC_BYTES else ED25519
    return Claim(api_key, int(timestamp), nonce, proof, algorithm)


def is_api_key(text: str) -> bool:
    """Whether it has the form of a key's public id."""
    return _API_KEY_FORM.fullmatch(text) is not None


def is_content_hash(text: str) -> bool:
    """Whether a gRPC caller's content header is one: 64 hex digits in lower case, or `stream`."""
    return text == STREAM_CONTENT or _HASH_FORM.fullmatch(text) is not None


def content_hash(body: bytes) -> str:
    """Hex SHA-256 of a body, an empty one too."""
    return hashlib.sha256(body).hexdigest()


def signed_string(claim: Claim, method: str, path: str, content: str) -> str:
    """The string that the signature is over; `path` has its query, `content` is the hash or `stream`."""
    first = _FIRST_LINE[claim.algorithm]
    return f"{first}\n{claim.timestamp_ms}\n{claim.nonce}\n{method}\n{path}\n{content}"


def verify(verifier: Verifier, claim: Claim, signed: str) -> bool:
    """Whether the key signed this string. One proof is computed for every claim, whichever key it is."""
    message = signed.encode("utf-8", "surrogateescape")
    if claim.algorithm == HMAC_SHA256:
        secret = verifier.secret if verifier.secret is not None else _NOBODY_SECRET
        proven = hmac.compare_digest(hmac.digest(secret, message, "sha256"), claim.signature)
    else:
        public_key = verifier.public_key if verifier.public_key is not None else _NOBODY_PUBLIC_KEY
        proven = _is_ed25519(public_key, claim.signature, message)
    return proven and claim.algorithm == verifier.algorithm


def decode_base64(text: str) -> bytes | None:
    """The bytes of standard, padded base64; None for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    # One spelling for one value: the unused bits of the last character must be zero.
    return data if base64.b64encode(data).decode("ascii") == text else None


def _is_ed25519(public_key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        public_key.verify(signature, message)
    except InvalidSignature:
        return False
    return True

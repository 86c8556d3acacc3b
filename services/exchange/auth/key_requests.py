"""What a client asks for when it makes an API key, and what can be told of it without the store."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final, TypeAlias

from exchange.auth.signatures import ALGORITHMS, ED25519, ed25519_verifier
from exchange.auth.tokens import SCOPES
from exchange.runtime.errors import ErrorReason, ServiceError, reject

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_ADDRESSES: Final = 32
MAX_LABEL: Final = 64
MAX_REQUEST_ID: Final = 64
# Limits are 32-bit columns; a limit as high as this is none.
MAX_LIMIT: Final = 1_000_000_000
# Of the scopes that a token may have, those that a key may have: a stolen key makes no other key.
KEY_SCOPES: Final = tuple(scope for scope in SCOPES if scope != "manage")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """What a client asks for. `scopes` are lower-case names, `public_key` 32 bytes with ED25519, else empty."""

    label: str
    algorithm: str
    scopes: tuple[str, ...]
    allowed_addresses: tuple[str, ...]
    account: str
    cancel_orders_on_revoke: bool
    max_orders_per_second: int
    max_open_orders: int
    expires_at: datetime | None
    public_key: bytes
    request_id: str


def check(request: KeyRequest, now: datetime) -> list[Network]:
    """Check what can be told without the store, and return the networks. Raises ServiceError, naming the field."""
    _check_text("label", request.label, MAX_LABEL)
    _check_text("request_id", request.request_id, MAX_REQUEST_ID)
    if " " in request.request_id or not request.request_id.isascii():
        reject(ErrorReason.INVALID_FIELD, field="request_id", value=request.request_id)
    if request.algorithm not in ALGORITHMS:
        reject(ErrorReason.UNKNOWN_ENUM_VALUE, field="algorithm")
    if not request.scopes:
        reject(ErrorReason.FIELD_REQUIRED, field="scopes")
    for scope in request.scopes:
        if scope not in KEY_SCOPES:
            reject(ErrorReason.INVALID_FIELD, field="scopes", value=scope)
    for field in ("max_orders_per_second", "max_open_orders"):
        if not 0 <= getattr(request, field) <= MAX_LIMIT:
            reject(ErrorReason.NUMBER_TOO_LARGE, field=field, value=getattr(request, field))
    if request.expires_at is not None and request.expires_at <= now:
        reject(ErrorReason.EXPIRE_TIME_PASSED, field="expire_time")
    _check_public_key(request)
    return parse_networks(request.allowed_addresses)


def parse_networks(texts: Sequence[str]) -> list[Network]:
    """Addresses and networks (CIDR), at most MAX_ADDRESSES. Raises ServiceError INVALID_FIELD, naming the field."""
    if len(texts) > MAX_ADDRESSES:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"at most {MAX_ADDRESSES} addresses are allowed",
            metadata={"field": "allowed_addresses", "value": len(texts)},
        )
    networks: list[Network] = []
    for index, text in enumerate(texts):
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            network = None
        # PostgreSQL's cidr knows no zones, and neither does what Envoy says of a peer.
        if network is None or "%" in text:
            reject(ErrorReason.INVALID_FIELD, field=f"allowed_addresses[{index}]", value=text)
        networks.append(network)
    return networks


def _check_text(field: str, text: str, longest: int) -> None:
    if not text:
        reject(ErrorReason.FIELD_REQUIRED, field=field)
    if len(text) > longest or not text.isprintable():
        reject(ErrorReason.INVALID_FIELD, field=field, value=text)


def _check_public_key(request: KeyRequest) -> None:
    if request.algorithm != ED25519:
        if request.public_key:
            reject(ErrorReason.FIELD_NOT_ALLOWED, field="public_key")
        return
    if not request.public_key:
        reject(ErrorReason.FIELD_REQUIRED, field="public_key")
    try:
        ed25519_verifier(request.public_key)
    except ValueError:
        reject(ErrorReason.INVALID_FIELD, field="public_key", value=f"{len(request.public_key)} bytes")


def request_hash(request: KeyRequest) -> bytes:
    """Equal for equal requests; the second factor's code is no part of them."""
    fields = [
        request.label,
        request.algorithm,
        list(request.scopes),
        list(request.allowed_addresses),
        request.account,
        request.cancel_orders_on_revoke,
        request.max_orders_per_second,
        request.max_open_orders,
        None if request.expires_at is None else (request.expires_at - _EPOCH) // timedelta(microseconds=1),
        request.public_key.hex(),
    ]
    return sha256(json.dumps(fields).encode()).digest()

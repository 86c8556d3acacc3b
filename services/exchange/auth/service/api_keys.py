"""What the contracts say of API keys and client certificates: for users, for operators, and the exchange for a token."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import jwt

from exchange.auth import users
from exchange.auth.certificates import Certificate, Certificates
from exchange.auth.instants import utc
from exchange.auth.key_requests import KeyRequest
from exchange.auth.keys import ApiKey, ApiKeys
from exchange.auth.login import Login
from exchange.auth.service import positions
from exchange.auth.service.callers import caller, known_user, standing
from exchange.auth.service.messages import reason_text, scope_names, scope_number, timestamp
from exchange.auth.signatures import decode_base64
from exchange.auth.store import Store
from exchange.auth.tokens import EXCHANGED, TokenMaker
from exchange.runtime import paging
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from pincex.auth.v1 import auth_admin_service_pb2 as admin_pb
from pincex.auth.v1 import types_pb2
from pincex.auth.v1 import user_service_pb2 as user_pb

_MAX_PUBLIC_KEY: Final = 64
"""Characters of a public key in base64; 32 bytes take 44."""


class ApiKeyCalls:
    """What users do with their own keys; `UserService` calls it."""

    def __init__(self, keys: ApiKeys, login: Login, store: Store, clock: Clock) -> None:
        self._keys = keys
        self._login = login
        self._store = store
        self._clock = clock

    async def create(self, request: user_pb.CreateApiKeyRequest, context: Any) -> user_pb.CreateApiKeyResponse:
        """CreateApiKey. A repeat takes no second code: the first one is used up."""
        user_id, principal = known_user()
        wanted = _key_request(request)
        known = await self._keys.find_repeat(user_id, wanted)
        if known is not None:
            return user_pb.CreateApiKeyResponse(key=key_message(known))
        async with self._store.connection() as connection:
            user = await users.by_id(connection, user_id)
        # All that can be told before, so that a mistake in the request costs no code.
        await self._keys.check(user, wanted, granted=principal.scopes, now=utc(self._clock))
        await self._login.check_code(user, request.code, caller(context))
        key, secret = await self._keys.create(user_id, wanted, granted=principal.scopes, now=utc(self._clock))
        return user_pb.CreateApiKeyResponse(key=key_message(key), secret=base64.b64encode(secret).decode("ascii"))

    async def page(self, request: user_pb.ListApiKeysRequest) -> user_pb.ListApiKeysResponse:
        """ListApiKeys: the newest first."""
        user_id, _ = known_user()
        size = paging.page_size(request.page_size)
        after = _key_position(paging.read_token(request.page_token, user_id))
        found = await self._keys.page(user_id, size + 1, after)
        response = user_pb.ListApiKeysResponse(keys=map(key_message, found[:size]))
        if len(found) > size:
            last = found[size - 1]
            position = f"{positions.microseconds(last.created_at)} {last.api_key}"
            response.next_page_token = paging.make_token(position, user_id)
        return response

    async def get(self, request: user_pb.GetApiKeyRequest) -> types_pb2.ApiKey:
        """GetApiKey."""
        user_id, _ = known_user()
        return key_message(await self._keys.get(request.api_key, user_id=user_id))

    async def revoke(self, request: user_pb.RevokeApiKeyRequest) -> types_pb2.ApiKey:
        """RevokeApiKey."""
        user_id, _ = known_user()
        revoked = await self._keys.revoke(
            request.api_key,
            reason=reason_text(request.reason) or "revoked by its user",
            cancel_orders=request.cancel_orders,
            user_id=user_id,
        )
        return key_message(revoked)


class ApiKeyExchange:
    """Gives tokens to whoever signed with an API key; `AuthService` calls it."""

    def __init__(self, keys: ApiKeys, tokens: TokenMaker, store: Store, clock: Clock) -> None:
        self._keys = keys
        self._tokens = tokens
        self._store = store
        self._clock = clock

    async def exchange(self, context: Any) -> types_pb2.Tokens:
        """ExchangeApiKey. Raises ServiceError PERMISSION_DENIED for who did not sign, CREDENTIAL_REVOKED, ACCOUNT_LOCKED.

        A token that was had by exchange gives no other: else whoever got hold of one could go on for ever.
        """
        _, principal = known_user()
        if not principal.api_key or _was_exchanged(context):
            raise ServiceError(
                ErrorReason.PERMISSION_DENIED, "only a request that is signed by an API key gets a token"
            )
        key = await self._keys.get(principal.api_key)
        async with self._store.connection() as connection:
            user = await users.by_id(connection, key.user_id)
        now = utc(self._clock)
        if key.is_over(now):
            raise ServiceError(ErrorReason.CREDENTIAL_REVOKED)
        if user.is_barred(now):
            raise ServiceError(ErrorReason.ACCOUNT_LOCKED)
        token = self._tokens.make(key.grant(user, exchanged=True))
        message = types_pb2.Tokens(
            access_token=token.text,
            session_id=key.api_key,
            user_id=str(user.user_id),
            account=key.account,
            scopes=map(scope_number, key.scopes),
        )
        message.access_expire_time.FromSeconds(token.expires_at)
        return message


class KeyAdminMethods:
    """The methods of AuthAdminService about keys and certificates; its servicer inherits them and sets both attributes."""

    _keys: ApiKeys
    _certificates: Certificates

    async def RevokeAnyApiKey(self, request: admin_pb.RevokeAnyApiKeyRequest, context: Any) -> types_pb2.ApiKey:
        """The runbook gives no reason."""
        revoked = await self._keys.revoke(
            request.api_key,
            reason=reason_text(request.reason) or "revoked by an operator",
            cancel_orders=request.cancel_orders,
            by=standing(),
        )
        return key_message(revoked)

    async def GetAnyApiKey(self, request: admin_pb.GetAnyApiKeyRequest, context: Any) -> types_pb2.ApiKey:
        """Whoever it belongs to."""
        return key_message(await self._keys.get(request.api_key))

    async def AllowCertificate(self, request: admin_pb.AllowCertificateRequest, context: Any) -> admin_pb.Certificate:
        """On the mTLS listener."""
        reason_text(request.reason)
        scopes = scope_names(request.scopes)
        allowed = await self._certificates.allow(request.subject_uri, request.account, scopes, by=standing())
        return certificate_message(allowed)

    async def ListCertificates(
        self, request: admin_pb.ListCertificatesRequest, context: Any
    ) -> admin_pb.ListCertificatesResponse:
        """By name."""
        size = paging.page_size(request.page_size)
        found = await self._certificates.page(size + 1, paging.read_token(request.page_token))
        response = admin_pb.ListCertificatesResponse(certificates=map(certificate_message, found[:size]))
        if len(found) > size:
            response.next_page_token = paging.make_token(found[size - 1].subject_uri)
        return response

    async def RemoveCertificate(
        self, request: admin_pb.RemoveCertificateRequest, context: Any
    ) -> admin_pb.RemoveCertificateResponse:
        """Its tokens are void, and its streams end."""
        reason = reason_text(request.reason) or "certificate removed by an operator"
        await self._certificates.remove(request.subject_uri, reason, by=standing())
        return admin_pb.RemoveCertificateResponse()


def key_message(key: ApiKey) -> types_pb2.ApiKey:
    """A key, without its secret, as the contract shows it."""
    message = types_pb2.ApiKey(
        api_key=key.api_key,
        label=key.label,
        algorithm=types_pb2.KeyAlgorithm.Value(key.algorithm),
        scopes=map(scope_number, key.scopes),
        allowed_addresses=_shown_networks(key),
        account=key.account,
        cancel_orders_on_revoke=key.cancel_orders_on_revoke,
        max_orders_per_second=key.max_orders_per_second,
        max_open_orders=key.max_open_orders,
        created_time=timestamp(key.created_at),
        revoked_reason=key.revoked_reason,
        user_id=str(key.user_id),
        public_key=base64.b64encode(key.public_key).decode("ascii"),
    )
    for instant, field in (
        (key.expires_at, message.expire_time),
        (key.used_at, message.used_time),
        (key.revoked_at, message.revoked_time),
    ):
        if instant is not None:
            field.CopyFrom(timestamp(instant))
    return message


def certificate_message(certificate: Certificate) -> admin_pb.Certificate:
    """An allowed certificate as the contract shows it."""
    return admin_pb.Certificate(
        subject_uri=certificate.subject_uri,
        account=certificate.account,
        scopes=map(scope_number, certificate.scopes),
        created_time=timestamp(certificate.created_at),
        user_id=str(certificate.user_id),
    )


def _shown_networks(key: ApiKey) -> Iterable[str]:
    """A single address without its prefix length."""
    for network in key.allowed_addresses:
        yield str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _key_request(request: user_pb.CreateApiKeyRequest) -> KeyRequest:
    algorithm = request.algorithm or types_pb2.HMAC_SHA256
    if algorithm not in types_pb2.KeyAlgorithm.values():
        reject(ErrorReason.UNKNOWN_ENUM_VALUE, field="algorithm")
    return KeyRequest(
        label=request.label,
        algorithm=types_pb2.KeyAlgorithm.Name(algorithm),
        scopes=scope_names(request.scopes),
        allowed_addresses=tuple(request.allowed_addresses),
        account=request.account,
        cancel_orders_on_revoke=request.cancel_orders_on_revoke,
        max_orders_per_second=request.max_orders_per_second,
        max_open_orders=request.max_open_orders,
        expires_at=_expiry(request),
        public_key=_public_key(request.public_key),
        request_id=request.request_id,
    )


def _expiry(request: user_pb.CreateApiKeyRequest) -> datetime | None:
    if not request.HasField("expire_time"):
        return None
    try:
        return request.expire_time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        reject(ErrorReason.INVALID_FIELD, field="expire_time", value=request.expire_time.seconds)


def _public_key(text: str) -> bytes:
    data = decode_base64(text) if len(text) <= _MAX_PUBLIC_KEY else None
    if data is None:
        # Not repeated: it may be the private half.
        raise ServiceError(
            ErrorReason.INVALID_FIELD, "public_key must be base64 of 32 bytes", metadata={"field": "public_key"}
        )
    return data


def _key_position(position: str) -> tuple[datetime, str] | None:
    if not position:
        return None
    number, _, api_key = position.partition(" ")
    if not (number.isdigit() and len(number) <= paging.MAX_POSITION_DIGITS):
        raise ServiceError(ErrorReason.INVALID_PAGE_TOKEN, metadata={"field": "page_token"})
    return positions.instant_of(int(number)), api_key


def _was_exchanged(context: Any) -> bool:
    """Whether the bearer token of this call, which the guard has verified, came out of an exchange."""
    given = dict(context.invocation_metadata()).get("authorization", "")
    token = given.partition(" ")[2]
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return True
    return bool(claims.get(EXCHANGED))

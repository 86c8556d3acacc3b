"""Decides about a request that Envoy holds: who signed it, or whose certificate it came with, and the token for that."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, NoReturn

from exchange.auth import signatures
from exchange.auth.gate.credentials import Credentials, KnownCertificate, KnownKey
from exchange.auth.gate.uses import Uses
from exchange.auth.instants import utc
from exchange.auth.nonces import Nonces, Verdict
from exchange.auth.signatures import Claim, MalformedSignature
from exchange.auth.tokens import TokenMaker
from exchange.runtime.audit.contract import OK
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError

# One pair of `x-forwarded-client-cert` and what follows it: `;` another pair, `,` the next connection. Subjects are chosen by
# whoever asked for the certificate, so what stands in quotes must not be taken for pairs.
_PAIR: Final = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,"]*)([;,]|$)')
_MAX_ACTION: Final = 256


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What a signature is over, and its headers as they were sent; "" for one that is absent.

    `path` has its query. `content_hash` is None where `body` is what counts (REST), else the header's value (gRPC).
    """

    method: str
    path: str
    body: bytes
    content_hash: str | None
    api_key: str
    timestamp: str
    nonce: str
    signature: str
    address: str
    request_id: str


@dataclass(frozen=True, slots=True)
class CertifiedRequest:
    """A request with a client certificate; `forwarded` is Envoy's `x-forwarded-client-cert`."""

    path: str
    forwarded: str
    address: str
    request_id: str


class Gate:
    """One a process."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        nonces: Nonces,
        tokens: TokenMaker,
        uses: Uses,
        clock: Clock,
        window_ms: int,
    ) -> None:
        self._credentials = credentials
        self._nonces = nonces
        self._tokens = tokens
        self._uses = uses
        self._clock = clock
        self._window_ms = window_ms

    async def admit_signed(self, request: SignedRequest) -> str:
        """Return the token of the key that signed. Raises ServiceError with what the client may know."""
        action = _action(request.path)
        proven: KnownKey | None = None
        outcome = "INTERNAL"
        try:
            claim, signed = self._read(request)
            known = await self._credentials.keys.get(claim.api_key)
            verifier = known.verifier if known is not None else signatures.NOBODY
            if not signatures.verify(verifier, claim, signed) or known is None:
                self._refuse_signature("the signature is not that of the request", signed)
            proven = known
            self._check_key(known, request.address)
            await self._use_nonce(claim, known)
            token = known.tokens.get(self._tokens, known.grant, self._clock.time_ns() / 1e9)
            outcome = OK
        except ServiceError as error:
            outcome = error.reason_name
            raise
        finally:
            user = str(proven.user.user_id) if proven is not None else ""
            # What is no key's public id is not repeated: it may be a secret in the wrong header.
            api_key = request.api_key if signatures.is_api_key(request.api_key) else "(malformed)"
            self._uses.key(api_key, user, action, request.address, request.request_id, outcome)
        return token.text

    async def admit_certified(self, request: CertifiedRequest) -> str:
        """Return the token of the certificate's account. Raises ServiceError."""
        action = _action(request.path)
        subject = subject_of(request.forwarded)
        known: KnownCertificate | None = None
        outcome = "INTERNAL"
        try:
            known = await self._credentials.certificates.get(subject) if subject else None
            if known is None:
                raise ServiceError(ErrorReason.UNAUTHENTICATED, "this client certificate is not allowed here")
            if known.user.is_barred(utc(self._clock)):
                raise ServiceError(ErrorReason.ACCOUNT_LOCKED)
            token = known.tokens.get(self._tokens, known.grant, self._clock.time_ns() / 1e9)
            outcome = OK
        except ServiceError as error:
            outcome = error.reason_name
            raise
        finally:
            user = str(known.user.user_id) if known is not None else ""
            self._uses.certificate(subject, user, action, request.address, request.request_id, outcome)
        return token.text

    def _read(self, request: SignedRequest) -> tuple[Claim, str]:
        """The claim and the string that must have been signed. Raises ServiceError, the same for every key."""
        try:
            claim = signatures.read_claim(request.api_key, request.timestamp, request.nonce, request.signature)
        except MalformedSignature as error:
            self._refuse_signature(str(error), "")
        content = request.content_hash
        if content is None:
            content = signatures.content_hash(request.body)
        elif not signatures.is_content_hash(content):
            self._refuse_signature(
                f"{signatures.CONTENT_HASH_HEADER} must be the hex SHA-256 of the request message, or `stream`", ""
            )
        now_ms = self._now_ms()
        if abs(now_ms - claim.timestamp_ms) > self._window_ms:
            self._refuse_timestamp(claim, "the timestamp lies outside the window")
        return claim, signatures.signed_string(claim, request.method, request.path, content)

    def _check_key(self, known: KnownKey, address: str) -> None:
        now = utc(self._clock)
        if known.key.is_over(now):
            raise ServiceError(ErrorReason.CREDENTIAL_REVOKED, "the key was revoked, or its time is over")
        if known.user.is_barred(now):
            raise ServiceError(ErrorReason.ACCOUNT_LOCKED)
        networks = known.key.allowed_addresses
        if networks:
            peer = ipaddress.ip_address(address) if address else None
            if peer is None or not any(peer in network for network in networks):
                raise ServiceError(ErrorReason.ADDRESS_NOT_ALLOWED, metadata={"address": address})

    async def _use_nonce(self, claim: Claim, known: KnownKey) -> None:
        verdict = await self._nonces.take(
            claim.api_key,
            claim.nonce,
            signed_ms=claim.timestamp_ms,
            key_created_ms=int(known.key.created_at.timestamp() * 1_000),
        )
        if verdict is Verdict.REUSED:
            raise ServiceError(ErrorReason.NONCE_REUSED, metadata={"server_time": self._now_ms()})
        if verdict is Verdict.BEFORE_EPOCH:
            self._refuse_timestamp(claim, "timestamps from before a restart of the database are refused: sign again")

    def _refuse_signature(self, message: str, signed: str) -> NoReturn:
        metadata = {"server_time": self._now_ms(), "signed": signed}
        raise ServiceError(ErrorReason.SIGNATURE_REFUSED, message, metadata=metadata)

    def _refuse_timestamp(self, claim: Claim, message: str) -> NoReturn:
        metadata = {"server_time": self._now_ms(), "timestamp": claim.timestamp_ms, "window_ms": self._window_ms}
        raise ServiceError(ErrorReason.TIMESTAMP_OUT_OF_WINDOW, message, metadata=metadata)

    def _now_ms(self) -> int:
        return self._clock.time_ns() // 1_000_000


def _action(path: str) -> str:
    """What logs say of a path: without its query, and cut."""
    return path.partition("?")[0][:_MAX_ACTION]


def subject_of(forwarded: str) -> str:
    """The one URI in the last element of `x-forwarded-client-cert`, that of the connection to Envoy.

    "" where there is none, or more than one, or the header has another form.
    """
    found: list[str] = []
    at, separator = 0, ","
    while separator:
        pair = _PAIR.match(forwarded, at)
        if pair is None:
            return ""
        if separator == ",":
            found = []
        name, value, separator = pair.groups()
        if name == "URI":
            found.append(value.strip('"'))
        at = pair.end()
    return found[0] if len(found) == 1 else ""

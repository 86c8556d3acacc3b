"""By what a client is known, handed on to the edge as the client would hand it over itself."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from exchange.runtime.client_address import FORWARDED_KEY
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.principal import ACCOUNT_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

AUTHORIZATION_KEY: Final = "authorization"
_SCHEME: Final = "bearer "
MAX_TOKEN: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """`token` is an access token, `account` whom the development profile takes an anonymous caller for, `forwarded` the
    addresses that the request came over: the client's own at the end, which the edge has written.

    The edge adds this machine's address behind it, so services take a call for the client's own only as far as they
    trust this machine; the development profile lets anonymous callers in only where all of them are loopback.
    """

    token: str = field(default="", repr=False)
    account: str = ""
    forwarded: str = ""

    @property
    def is_anonymous(self) -> bool:
        """Whether the client gave none."""
        return not self.token

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers of a call."""
        found: list[tuple[str, str]] = []
        if self.token:
            found.append((AUTHORIZATION_KEY, f"Bearer {self.token}"))
        if self.account:
            found.append((ACCOUNT_KEY, self.account))
        if self.forwarded:
            found.append((FORWARDED_KEY, self.forwarded))
        return tuple(found)

    @property
    def expires(self) -> float:
        """When the token does, in seconds since 1970; 0 without one. Only of use once the edge has taken the token."""
        return self._claims().exp

    @property
    def of_certificate(self) -> bool:
        """Whether the edge has made the token for a certificate, whose owner has no other to log in with. Only of use once the
        edge has taken it.
        """
        return bool(self._claims().crt)

    @property
    def account_of_token(self) -> str:
        """Whose it is; only of use once the edge has taken it."""
        return self._claims().acc

    def _claims(self) -> _Claims:
        """What the token says, unverified."""
        try:
            payload = self.token.split(".")[1]
            return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims)
        except (IndexError, ValueError, binascii.Error, msgspec.MsgspecError):
            return _Claims()


class _Claims(msgspec.Struct):
    exp: float = 0.0
    acc: str = ""
    crt: str = ""


def from_headers(headers: Mapping[str, str], forwarded: str) -> Credentials:
    """Of a handshake. Raises ServiceError TOKEN_REFUSED."""
    authorization = headers.get(AUTHORIZATION_KEY, "")
    if authorization and authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise ServiceError(ErrorReason.TOKEN_REFUSED, "authorization must be: Bearer <access token>")
    token = checked_token(authorization[len(_SCHEME) :].strip()) if authorization else ""
    return Credentials(token, checked_account(headers.get(ACCOUNT_KEY, "")), forwarded)


def checked_token(token: object) -> str:
    """A text that can stand in a header. Raises ServiceError TOKEN_REFUSED."""
    if not isinstance(token, str) or not token or len(token) > MAX_TOKEN or not _fits_header(token):
        raise ServiceError(ErrorReason.TOKEN_REFUSED)
    return token


def checked_account(account: object) -> str:
    """The same for the name of an account. Raises ServiceError INVALID_FIELD."""
    if not isinstance(account, str) or len(account) > 64 or not _fits_header(account):
        raise ServiceError(ErrorReason.INVALID_FIELD, metadata={"field": "account", "value": account})
    return account


def _fits_header(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text

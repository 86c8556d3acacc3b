"""Users, sessions, keys and accounts as the exchange tells them: plain frozen dataclasses.

Roles and scopes are the contract's names ("OPERATOR", "READ").
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class User:
    """A person, as it sees itself.

    `locked_until_time` is None while it is not locked, and in the year 9999 where the lock lasts until somebody unlocks; then
    `locked_until_unlocked` is true.
    """

    user_id: str
    email: str
    email_verified: bool
    second_factor: bool
    roles: tuple[str, ...]
    tier: str
    accounts: tuple[str, ...]
    created_time: datetime | None
    locked_until_time: datetime | None
    recovery_codes_left: int
    locked_until_unlocked: bool = False


@dataclass(frozen=True, slots=True)
class RetiredSigningKeys:
    """Signing keys that are void now, and the one that signs, from `signs_from_time` on."""

    retired_key_ids: tuple[str, ...]
    key_id: str
    signs_from_time: datetime | None


@dataclass(frozen=True, slots=True)
class LoginSession:
    """A log-in session; `current` is the one that asks."""

    session_id: str
    ip_address: str
    user_agent: str
    created_time: datetime | None
    used_time: datetime | None
    expire_time: datetime | None
    current: bool


@dataclass(frozen=True, slots=True)
class ApiKeyInfo:
    """A key for programs, without its secret; `revoked_time` is None while it is alive."""

    api_key: str
    label: str
    algorithm: str
    scopes: tuple[str, ...]
    allowed_addresses: tuple[str, ...]
    account: str
    cancel_orders_on_revoke: bool
    max_orders_per_second: int
    max_open_orders: int
    created_time: datetime | None
    expire_time: datetime | None
    used_time: datetime | None
    revoked_time: datetime | None
    revoked_reason: str
    user_id: str
    public_key: str


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key, and its secret for the first and last time: base64, empty with ED25519 and in a repeat."""

    key: ApiKeyInfo
    secret: str

    def __repr__(self) -> str:
        """Without the secret: it ends up in logs."""
        return f"NewApiKey(key={self.key!r})"


@dataclass(frozen=True, slots=True)
class SubAccount:
    """An account beside a user's main one."""

    account: str
    name: str
    created_time: datetime | None


@dataclass(frozen=True, slots=True)
class LockedAccount:
    """Who is locked, why, and until when (None: until somebody unlocks it)."""

    user_id: str
    email: str
    reason: str
    locked_time: datetime | None
    locked_until_time: datetime | None
    failed_attempts: int


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A log-in that failed; `user_id` is empty where the name is not known."""

    user_id: str
    ip_address: str
    attempt_time: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class ManyAddressUser:
    """A user who logged in from many addresses; at most 100 of them are named."""

    user_id: str
    address_count: int
    ip_addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """What ended when an operator logged a user out."""

    ended_sessions: int
    revoked_api_keys: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate that may act on an account over mTLS."""

    subject_uri: str
    account: str
    scopes: tuple[str, ...]
    created_time: datetime | None
    user_id: str

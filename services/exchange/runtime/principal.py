"""Who makes a call, and how a server finds out."""

import ipaddress
import re
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import unquote

import structlog

from exchange.runtime.clock import Clock, SystemClock
from exchange.runtime.config import RuntimeConfig
from exchange.runtime.errors import ErrorReason, ServiceError

OPERATOR: Final = "operator"
ADMIN: Final = "admin"
"""A role that includes every other, and a scope without which roles of staff do not count."""
STAFF_ROLES: Final = frozenset({"support", OPERATOR, ADMIN, "auditor"})
"""Of a token they count only with the scope admin."""
ALL_ROLES: Final = STAFF_ROLES | {"trader", "market_maker"}
ALL_SCOPES: Final = frozenset({"read", "trade", "withdraw", "manage", ADMIN})
OPS_LOCAL: Final = "ops-local"
DEMO_ACCOUNT: Final = "demo"
ACCOUNT_KEY: Final = "x-pincex-account"

_ACCOUNT_FORM: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FORWARDED_KEY: Final = "x-forwarded-for"
_EXTERNAL_KEY: Final = "x-envoy-external-address"
_WARNING_INTERVAL_S: Final = 60.0
_MAX_CACHED: Final = 1024

# (key, value) pairs of a call; keys are lower case, values of keys ending in "-bin" are bytes.
Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a call.

    `account` is whose orders and balances it sees. `roles` and `scopes` are the contract's names in lower case
    (`pincex.common.v1.Role`, `Access.Scope`). `source` is how it was told: `token`, `api-key`, `certificate`, `service`,
    `development`, or `ops-local`. An operator who names an account reads as that account (`source` stays `ops-local`); what
    is written into audits is `source` and `account` together.

    With a token, `user` is its user's id, exactly one of `session`, `api_key` and `certificate` is what the token stands
    for, `generation` the user's when it was made, and `ends_at` (seconds since 1970 UTC, 0: never) when session or key is
    over, which is when a stream that it opened ends. `signing_key` is the id of the key that signed the token. The two limits
    are a key's own; 0: those of the tier.
    """

    account: str
    roles: frozenset[str]
    source: str
    scopes: frozenset[str] = frozenset()
    user: str = ""
    session: str = ""
    api_key: str = ""
    certificate: str = ""
    signing_key: str = ""
    generation: int = 0
    ends_at: int = 0
    tier: str = "development"
    max_orders_per_second: int = 0
    max_open_orders: int = 0

    def has_role(self, role: str) -> bool:
        """Whether it was given the role, or admin, which includes every role."""
        return role in self.roles or ADMIN in self.roles

    @property
    def credential(self) -> str:
        """How it proved itself, as audits show it: "api-key ak_...", "token", "ops-local"."""
        return f"{self.source} {self.api_key or self.certificate}".strip()


ANONYMOUS: Final = Principal(account="", roles=frozenset(), source="anonymous")


class PrincipalResolver(Protocol):
    """Finds out who makes a call."""

    def resolve(self, peer: str, metadata: Metadata) -> Principal | Awaitable[Principal]:
        """Return the principal at once where it is known (a cached token), else something to await.

        `peer` is gRPC's own form, such as `ipv4:127.0.0.1:53211`. Raises ServiceError, UNAUTHENTICATED above all.
        """
        ...

    def why_void(self, principal: Principal) -> ErrorReason.ValueType | None:
        """Why a principal that it let in counts no more, None while it does: asked again and again while calls of it run."""
        ...


class DenyingResolver:
    """Knows nobody: whoever comes without a credential, in every profile but development."""

    def resolve(self, peer: str, metadata: Metadata) -> Principal:  # noqa: ARG002 - the protocol's form
        """Raise ServiceError UNAUTHENTICATED."""
        raise ServiceError(ErrorReason.UNAUTHENTICATED)

    def why_void(self, principal: Principal) -> None:
        """Nobody was let in."""


class DevelopmentResolver:
    """Lets anonymous callers of this machine in as an account of their choice, with every scope; for development only.

    Without `x-pincex-account` they act as `demo`, or as `ops-local` with every role on the ops server
    (`operator=True`). Through Envoy the peer is always this machine, so the addresses it forwards must be loopback
    too. Says so in the log, at most once a minute.
    """

    def __init__(self, *, operator: bool = False, clock: Clock | None = None) -> None:
        self._source = OPS_LOCAL if operator else "development"
        self._default_account = OPS_LOCAL if operator else DEMO_ACCOUNT
        self._roles = ALL_ROLES if operator else frozenset[str]()
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._next_warning = float("-inf")
        self._known: dict[str, Principal] = {}
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("principal")

    def resolve(self, peer: str, metadata: Metadata) -> Principal:
        """Return the named account. Raises ServiceError UNAUTHENTICATED off this machine, INVALID_FIELD for a bad name."""
        account: str | bytes = self._default_account
        local = is_loopback_peer(peer)
        for key, value in metadata:
            if key == ACCOUNT_KEY:
                account = value
            elif key in {_FORWARDED_KEY, _EXTERNAL_KEY}:
                local = local and _all_loopback(value)
        if not local:
            raise ServiceError(
                ErrorReason.UNAUTHENTICATED, "anonymous calls are taken from this machine only: sign in first"
            )
        now = self._clock.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARNING_INTERVAL_S
            self._log.warning(
                "anonymous calls from this machine are let in: development profile", account=account, peer=peer
            )
        principal = self._known.get(account) if isinstance(account, str) else None
        return principal if principal is not None else self._remember(account)

    def why_void(self, principal: Principal) -> None:
        """Who calls from this machine counts for as long as the call lasts."""

    def _remember(self, account: str | bytes) -> Principal:
        if not isinstance(account, str) or _ACCOUNT_FORM.fullmatch(account) is None:
            raise ServiceError(
                ErrorReason.INVALID_FIELD,
                f"{ACCOUNT_KEY} must be 1 to 64 characters of A-Z a-z 0-9 _ . -",
                metadata={"field": ACCOUNT_KEY, "value": account},
            )
        if len(self._known) >= _MAX_CACHED:
            self._known.clear()
        principal = Principal(account=account, roles=self._roles, source=self._source, scopes=ALL_SCOPES)
        self._known[account] = principal
        return principal


def resolver_for(config: RuntimeConfig, *, operator: bool = False) -> PrincipalResolver:
    """Who comes without a credential, by the profile; `operator=True` for the server behind the ops listener."""
    return DevelopmentResolver(operator=operator) if config.development else DenyingResolver()


def is_loopback_peer(peer: str) -> bool:
    """Whether gRPC's peer (`ipv4:HOST:PORT`, `ipv6:[HOST]:PORT`, perhaps percent-encoded, `unix:...`) is this machine."""
    if peer.startswith(("ipv4:127.0.0.1:", "unix:")):
        return True
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return False
    host = unquote(rest).rpartition(":")[0]
    return _is_loopback(host.strip("[]"))


def _all_loopback(value: str | bytes) -> bool:
    if not isinstance(value, str):
        return False
    return all(_is_loopback(part.strip()) for part in value.split(","))


@lru_cache(maxsize=_MAX_CACHED)
def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback

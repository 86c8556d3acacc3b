"""Keys and certificates as the gate needs them: looked up once, and forgotten when they are revoked.

What was revoked is forgotten before the next look-up; while revocations cannot be followed, everything is looked up anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from exchange.auth import revocations, users
from exchange.auth.certificates import Certificate
from exchange.auth.encryption import Box
from exchange.auth.keys import ApiKey
from exchange.auth.signatures import HMAC_SHA256, Verifier, ed25519_verifier, hmac_verifier
from exchange.auth.store import Connection, Row, Store
from exchange.auth.tokens import AccessToken, Grant, TokenMaker
from exchange.auth.users import User
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.identity.revocations import Revocations
from exchange.runtime.identity.store import Revocation

MAX_CACHED: Final = 10_000
"""Keys, and as many certificates; those that were used least recently go first."""
MAX_AGE_S: Final = 30.0
"""What is no revocation, such as the end of a lock, counts after this at the latest."""
MAX_AGE_OF_LOCK_S: Final = 1.0
"""The same for a user that is locked: who was unlocked must not wait long."""
MAX_LOOKING_UP: Final = 1_000
"""Names that are looked up at a time; more are refused."""
MAX_CONNECTIONS: Final = 4
"""Of the gate's connections those that look-ups take: made-up names must not keep nonces waiting."""
MAX_SILENCE_S: Final = 0.7
"""For longer than this nothing revoked may go unseen: a key is dead within a second."""

_KEY_COLUMNS: Final = (
    "api_key, user_id, account, label, algorithm, secret, public_key, scopes, allowed_addresses, "
    "cancel_orders_on_revoke, max_orders_per_second, max_open_orders, created_at, expires_at, used_at, revoked_at, "
    "revoked_reason"
)


class Holder(Protocol):
    """What a cache keeps: whose it is."""

    @property
    def user(self) -> User:
        """Its user, as of when it was looked up."""
        ...


H = TypeVar("H", bound=Holder)


class Tokens:
    """One access token of a credential, used until half of its life is over: services find it in their caches."""

    __slots__ = ("_renew_at_s", "_token")

    def __init__(self) -> None:
        self._token: AccessToken | None = None
        self._renew_at_s = 0.0

    def get(self, maker: TokenMaker, grant: Grant, now_s: float) -> AccessToken:
        """The token, made anew where it is due. Raises ServiceError AUTH_UNAVAILABLE while no key signs."""
        token = self._token
        if token is None or now_s >= self._renew_at_s or not maker.is_good(token):
            token = self._token = maker.make(grant)
            self._renew_at_s = now_s + (token.expires_at - now_s) / 2
        return token


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key with what proves its signatures, and its user."""

    key: ApiKey
    verifier: Verifier
    user: User
    tokens: Tokens

    @property
    def grant(self) -> Grant:
        """What its tokens say."""
        return self.key.grant(self.user)


@dataclass(frozen=True, slots=True)
class KnownCertificate:
    """An allowed certificate and its user."""

    certificate: Certificate
    user: User
    tokens: Tokens

    @property
    def grant(self) -> Grant:
        """What its tokens say."""
        certificate = self.certificate
        return Grant(
            user=self.user,
            account=certificate.account,
            scopes=certificate.scopes,
            certificate=certificate.subject_uri,
        )


@dataclass(slots=True)
class _Loading(Generic[H]):
    """A look-up that runs; `outdated` once something of it was revoked meanwhile."""

    task: asyncio.Task[H | None]
    outdated: bool = False


class Cache(Generic[H]):
    """What was found under a name. Callers of one name at a time share one look-up."""

    def __init__(self, load: Callable[[str], Awaitable[H | None]], follow: Callable[[], bool], clock: Clock) -> None:
        """`follow` forgets here what was revoked, and says whether the rest may be believed."""
        self._load = load
        self._follow = follow
        self._clock = clock
        self._found: OrderedDict[str, tuple[float, H]] = OrderedDict()
        self._loading: dict[str, _Loading[H]] = {}

    async def get(self, name: str) -> H | None:
        """Return it, None where there is none. Raises ServiceError AUTH_UNAVAILABLE where it cannot be looked up, OVERLOADED."""
        if self._follow():
            known = self._found.get(name)
            if known is not None and self._clock.monotonic() < known[0]:
                self._found.move_to_end(name)
                return known[1]
        while True:
            loading = self._loading.get(name)
            if loading is None:
                if len(self._loading) >= MAX_LOOKING_UP:
                    raise ServiceError(ErrorReason.OVERLOADED, metadata={"limit": MAX_LOOKING_UP})
                loading = self._loading[name] = _Loading(asyncio.create_task(self._look_up(name)))
            # The look-up belongs to all who wait for it: one that is cancelled must not end it for the others.
            found = await asyncio.shield(loading.task)
            if not loading.outdated:
                return found

    def forget(self, name: str) -> None:
        """Something of this name was revoked."""
        self._found.pop(name, None)
        if name in self._loading:
            self._loading[name].outdated = True

    def forget_user(self, user_id: str) -> None:
        """Something of this user was revoked: its roles, tier, lock or log-ins may differ."""
        for name in [name for name, (_, one) in self._found.items() if one.user.account == user_id]:
            del self._found[name]
        self._outdate()

    def clear(self) -> None:
        """Forget everything."""
        self._found.clear()
        self._outdate()

    def _outdate(self) -> None:
        for loading in self._loading.values():
            loading.outdated = True

    async def _look_up(self, name: str) -> H | None:
        try:
            found = await self._load(name)
            # What was revoked while it was looked up may not be in it.
            self._follow()
            # What is not there is not kept: names that somebody makes up would take the place of others.
            if found is not None and not self._loading[name].outdated:
                self._keep(name, found)
            return found
        finally:
            del self._loading[name]

    def _keep(self, name: str, found: H) -> None:
        # Who is locked may be let in without a word here.
        age_s = MAX_AGE_S if found.user.locked_at is None else MAX_AGE_OF_LOCK_S
        self._found[name] = self._clock.monotonic() + age_s, found
        self._found.move_to_end(name)
        while len(self._found) > MAX_CACHED:
            self._found.popitem(last=False)


class Credentials:
    """The keys and certificates that may come to the gate."""

    def __init__(self, store: Store, box: Box, revocations: Revocations, clock: Clock) -> None:
        """`box` is that of the secrets of API keys. Somebody polls `revocations`."""
        self._store = store
        self._box = box
        self._revocations = revocations
        self._sequence = 0
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self.keys: Cache[KnownKey] = Cache(self._load_key, self._follow, clock)
        self.certificates: Cache[KnownCertificate] = Cache(self._load_certificate, self._follow, clock)

    def _follow(self) -> bool:
        """Forget what was revoked since the last time; whether that is all, up to a moment ago."""
        newest = self._revocations.sequence
        if newest < self._sequence:
            # The database was restored: numbers are given a second time.
            self.keys.clear()
            self.certificates.clear()
        elif newest > self._sequence:
            for _, revocation in self._revocations.since(self._sequence):
                self._forget(revocation)
        self._sequence = newest
        return self._revocations.silent_s <= MAX_SILENCE_S

    def _forget(self, revocation: Revocation) -> None:
        if revocation.kind == revocations.API_KEY:
            self.keys.forget(revocation.subject)
        elif revocation.kind == revocations.USER:
            self.keys.forget_user(revocation.subject)
            self.certificates.forget_user(revocation.subject)

    async def _load_key(self, api_key: str) -> KnownKey | None:
        async with self._connections, self._store.connection() as connection:
            row = await connection.fetchrow(f"SELECT {_KEY_COLUMNS} FROM api_keys WHERE api_key = $1", api_key)  # noqa: S608 - a constant
            if row is None:
                return None
            user = await _user(connection, row)
        return KnownKey(ApiKey.of(row), self._verifier(row), user, Tokens())

    async def _load_certificate(self, subject_uri: str) -> KnownCertificate | None:
        async with self._connections, self._store.connection() as connection:
            row = await connection.fetchrow("SELECT * FROM certificates WHERE subject_uri = $1", subject_uri)
            if row is None:
                return None
            user = await _user(connection, row)
        return KnownCertificate(Certificate.of(row), user, Tokens())

    def _verifier(self, row: Row) -> Verifier:
        if row["algorithm"] == HMAC_SHA256:
            return hmac_verifier(self._box.decrypt(row["secret"], row["api_key"]))
        return ed25519_verifier(row["public_key"])


async def _user(connection: Connection, row: Row) -> User:
    return await users.by_id(connection, row["user_id"])

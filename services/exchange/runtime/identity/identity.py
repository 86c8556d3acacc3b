"""All that a process needs to know its callers, wired: one connection, one task, a resolver for each server.

    identity = Identity(config.runtime, database_url=config.database_url, service_secret=config.jwt_secret)
    server = GrpcServer(address, resolver=identity.resolver(operator=False), ...)
    following = asyncio.create_task(identity.run())

Not running, or with a database that is away, it refuses tokens with AUTH_UNAVAILABLE; nothing waits for it to start.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from exchange.runtime.clock import Clock, SystemClock
from exchange.runtime.config import RuntimeConfig, Secret
from exchange.runtime.identity.keys import SigningKeys
from exchange.runtime.identity.resolver import CheckedTokens, NoTokens, TokenResolver, Tokens
from exchange.runtime.identity.revocations import POLL_S, Revocations
from exchange.runtime.identity.service_token import ServiceTokens
from exchange.runtime.identity.store import STORE_ERRORS, IdentityStore
from exchange.runtime.principal import resolver_for

# A key is published well before it signs, and one that is not known is asked for at once; this finds what was withdrawn.
REFRESH_KEYS_S: Final = 5.0
WARN_EVERY_S: Final = 30.0


class Identity:
    """Follows keys and revocations in the auth service's tables, and makes resolvers."""

    def __init__(
        self,
        config: RuntimeConfig,
        *,
        database_url: Secret | None,
        service_secret: Secret | None,
        clock: Clock | None = None,
    ) -> None:
        """Without a database no token can be checked, so none is taken; without a secret no service is known."""
        self._config = config
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("identity")
        self._services = ServiceTokens(service_secret, self._clock) if service_secret is not None else None
        self._store: IdentityStore | None = None
        self._tokens: Tokens = NoTokens()
        self.revocations: Revocations | None = None
        self.keys: SigningKeys | None = None
        if database_url is not None:
            name = f"{config.instance} identity"
            self._store = IdentityStore(database_url.reveal(), application_name=name)
            self.keys = SigningKeys(self._store.signing_keys, self._clock)
            self.revocations = Revocations(self._store, self._clock)
            self._tokens = CheckedTokens(self.keys, self.revocations, self._clock)

    def resolver(self, *, operator: bool) -> TokenResolver:
        """Who calls a server; `operator=True` for the one behind the ops listener, where services are known too."""
        others = resolver_for(self._config, operator=operator)
        return TokenResolver(self._tokens, self._services if operator else None, others)

    async def run(self) -> None:
        """Follow until cancelled; what fails is tried again for ever."""
        if self._store is None or self.keys is None or self.revocations is None:
            return
        keys_at = warn_at = float("-inf")
        try:
            while True:
                now = self._clock.monotonic()
                try:
                    await self.revocations.poll()
                    if now - keys_at >= REFRESH_KEYS_S:
                        await self.keys.refresh()
                        keys_at = now
                except Exception as error:  # noqa: BLE001 - whatever it was: without this task nobody is let in for ever
                    if now - warn_at >= WARN_EVERY_S:
                        warn_at = now
                        defect = None if isinstance(error, STORE_ERRORS) else error
                        self._log.warning("revocations cannot be followed", error=type(error).__name__, exc_info=defect)
                await asyncio.sleep(POLL_S)
        finally:
            await self._store.close()

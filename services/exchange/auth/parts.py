"""Everything behind the auth service's contracts, built from the configuration. Nothing here listens."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from exchange.auth import bootstrap
from exchange.auth.call_budget import CallBudget
from exchange.auth.certificates import Certificates
from exchange.auth.config import Config
from exchange.auth.encryption import Keyring
from exchange.auth.events import Events
from exchange.auth.keys import SECRET_PURPOSE, ApiKeys
from exchange.auth.login import Login
from exchange.auth.mail import Mailbox, Postman, Smtp
from exchange.auth.mail_codes import StoredMailCodes
from exchange.auth.market_maker_key import make_market_maker
from exchange.auth.metrics import AuthMetrics
from exchange.auth.passwords import Passwords
from exchange.auth.registration import Registration
from exchange.auth.second_factor import TotpSecondFactor
from exchange.auth.sessions import Sessions
from exchange.auth.signing_keys import SigningKeys
from exchange.auth.store import Store
from exchange.auth.sub_accounts import SubAccounts
from exchange.auth.suspicion import Suspicion
from exchange.auth.throttle import LoginThrottle
from exchange.auth.tokens import TokenMaker
from exchange.auth.user_admin import UserAdmin
from exchange.runtime.audit.contract import AuditTrail, SecurityLog
from exchange.runtime.clock import Clock
from exchange.runtime.errors import ServiceError
from exchange.runtime.quick_cache import QuickCache

PURGE_INTERVAL_S: Final = 3_600.0


class Parts:
    """One a process, in the order in which they need one another."""

    def __init__(
        self,
        config: Config,
        store: Store,
        cache: QuickCache,
        registry: CollectorRegistry,
        *,
        trail: AuditTrail,
        security: SecurityLog,
        clock: Clock,
    ) -> None:
        self.store = store
        self.clock = clock
        self.metrics = metrics = AuthMetrics(registry)
        self.events = events = Events(trail, security)
        keyring = Keyring(config.secret)
        self.signing_keys = SigningKeys(
            store,
            keyring,
            clock,
            metrics,
            rotation_s=config.signing_key_s,
            token_lifetime_s=config.access_token_s,
        )
        self.tokens = TokenMaker(self.signing_keys, clock, metrics, config.access_token_s)
        self.sessions = Sessions(store, keyring, clock, self.tokens, events, metrics, lifetime_s=config.refresh_token_s)
        self.passwords = Passwords(config.argon2, metrics)
        self.throttle = LoginThrottle(
            store, cache, keyring, policy=config.throttle, events=events, metrics=metrics, clock=clock
        )
        self.second_factor = TotpSecondFactor(store, keyring, clock)
        self.login = Login(
            store, clock, self.passwords, self.throttle, self.second_factor, self.sessions, events, metrics
        )
        transport = Smtp(config.smtp) if config.smtp is not None else Mailbox(config.mailbox_dir, clock)
        self.postman = Postman(transport, config.mail_from, clock=clock, metrics=metrics)
        self.registration = Registration(
            store,
            clock,
            self.passwords,
            self.throttle,
            StoredMailCodes(store, keyring, self.postman),
            self.sessions,
            CallBudget(clock),
        )
        self.sub_accounts = SubAccounts(store, clock)
        self.keys = ApiKeys(store, keyring.box(SECRET_PURPOSE))
        self.certificates = Certificates(store)
        self.user_admin = UserAdmin(store, self.sessions, self.keys, self.throttle, clock)
        self.suspicion = Suspicion(store)
        # In development it needs no proof.
        self._makes_market_maker = not config.runtime.development

    async def prepare(self, secrets_folder: Path) -> None:
        """Make what a new exchange lacks: the first signing key, the operator, and outside of development the market maker.

        Raises ServiceError AUTH_UNAVAILABLE, WrongSecret, PasswordNotLeft.
        """
        await self.signing_keys.refresh()
        await bootstrap.make_operator(self.store, self.passwords, self.events, secrets_folder)
        if self._makes_market_maker:
            await make_market_maker(self.store, self.passwords, self.keys, self.events, secrets_folder)

    async def housekeeping(self) -> None:
        """Remove what is kept no longer, every hour, for ever."""
        while True:
            # The database is away: the next hour is as good.
            with contextlib.suppress(ServiceError):
                await self.sessions.purge()
            await asyncio.sleep(PURGE_INTERVAL_S)

    async def close(self, grace_s: float) -> None:
        """Let mails and records that wait go out, and end the threads."""
        await self.postman.drain(grace_s)
        await self.throttle.close()
        self.passwords.close()

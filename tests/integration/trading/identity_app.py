"""The engine in the production profile before a real PostgreSQL, and clients that come with tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from exchange.trading import bootstrap, rules
from exchange.trading.__main__ import App
from exchange.trading.journal.memory import MemoryStore
from exchange.trading.service.desk import Desk
from pincex.trading.v1 import account_service_pb2
from tests.identity_fixture import Issuer, bearer
from tests.integration.trading.engine_app import Client, Exchange, eventually, running_exchange


class TokenClient(Client):
    """Calls with a token, and names an account that is not its own, which must not matter."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        super().__init__(channel, "demo")
        self.token = token

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (*bearer(self.token), ("x-pincex-account", "demo"))


class GuardedExchange:
    """A running engine that knows nobody but by token."""

    def __init__(self, exchange: Exchange, issuer: Issuer) -> None:
        self.exchange = exchange
        self.app = exchange.app
        self.issuer = issuer
        self.operator = TokenClient(exchange.ops, issuer.staff_token("operator"))

    def client(self, token: str) -> TokenClient:
        """Somebody on the public port."""
        return TokenClient(self.exchange.public, token)

    def staff(self, token: str) -> TokenClient:
        """Somebody on the ops port."""
        return TokenClient(self.exchange.ops, token)

    async def user(self, user: str, **claims: Any) -> TokenClient:
        """A user with a million USD and 10 BTC."""
        for asset, amount in (("USD", "1000000"), ("BTC", "10")):
            request = account_service_pb2.CreditAccountRequest(
                account=user, asset=asset, amount=amount, request_id=f"fund-{user}-{asset}", reason="a test"
            )
            await self.operator.ask(self.operator.accounts.CreditAccount, request)
        return self.client(self.issuer.token(user, **claims))


@asynccontextmanager
async def guarded_exchange(
    monkeypatch: pytest.MonkeyPatch,
    issuer: Issuer,
    database_url: str,
    *,
    store: MemoryStore | None = None,
    **variables: str,
) -> AsyncIterator[GuardedExchange]:
    """The production profile with the markets of the development profile: nobody has made others."""

    async def begin(desk: Desk) -> None:
        await bootstrap.begin(desk, rules.newest(), development=True)

    def prepare(app: App) -> None:
        monkeypatch.setattr(app.instance, "_bootstrap", begin)

    environment: dict[str, Any] = {
        "PINCEX_MEMORY": "",
        "DATABASE_URL": database_url,
        "PINCEX_PROFILE": "production",
        **variables,
    }
    async with running_exchange(monkeypatch, store=store, prepare=prepare, **environment) as exchange:
        revocations, keys = exchange.app.identity.revocations, exchange.app.identity.keys
        assert revocations is not None
        assert keys is not None
        await eventually(revocations.is_current, "revocations are followed")
        await eventually(lambda: keys.get(issuer.key.key_id) is not None, "keys are known")
        yield GuardedExchange(exchange, issuer)

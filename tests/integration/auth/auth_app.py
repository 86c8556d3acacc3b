"""The whole auth service inside the test's own event loop, and clients that speak gRPC to it over loopback."""

from __future__ import annotations

import asyncio
import email
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest
from google.rpc import error_details_pb2, status_pb2

from exchange.auth.__main__ import App
from exchange.auth.config import Config
from exchange.auth.store import Store
from exchange.runtime.config import Environment
from pincex.auth.v1 import (
    auth_admin_service_pb2_grpc,
    auth_service_pb2,
    auth_service_pb2_grpc,
    types_pb2,
    user_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from tests.postgres_fixture import Database

PASSWORD = "correct horse battery staple"
HERE, THERE = "198.51.100.7", "203.0.113.9"
DEADLINE_S = 10.0
_NUMBERS = count(1)
_CHEAP = {
    "PINCEX_ARGON2_MEMORY_KIB": "64",
    "PINCEX_ARGON2_ITERATIONS": "1",
    "PINCEX_AUTH_SECRET": "a secret of thirty-two characters and more",
    "JWT_SECRET": "what services of a test share",
    "PINCEX_PROFILE": "production",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status error as a client reads it."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]


async def refused(call: Awaitable[Any]) -> Refusal:
    """The error that a call must end with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    trailing: Any = error.trailing_metadata()
    raw = dict(trailing or ()).get("grpc-status-details-bin")
    assert raw is not None, f"no details: {error}"
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(raw).details[0].Unpack(info)
    return Refusal(error.code().name, info.reason, error.details() or "", dict(info.metadata))


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; fail naming what did not happen."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not condition():
        if loop.time() > deadline:
            pytest.fail(f"not within {DEADLINE_S:g} s: {what}")
        await asyncio.sleep(0.005)


class _FromAnywhere(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Each call that does not say where it comes from comes from an address of its own."""

    def __init__(self) -> None:
        self._addresses = count(1)

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = tuple(client_call_details.metadata or ())
        if not any(key == "x-forwarded-for" for key, _ in metadata):
            number = next(self._addresses)
            metadata = (*metadata, ("x-forwarded-for", f"10.0.{number // 250}.{number % 250 + 1}"))
        return await continuation(client_call_details._replace(metadata=metadata), request)


def bearer(tokens: types_pb2.Tokens | str) -> tuple[tuple[str, str], ...]:
    """Metadata of a call with this access token."""
    text = tokens if isinstance(tokens, str) else tokens.access_token
    return (("authorization", f"Bearer {text}"),)


def coming_from(address: str) -> tuple[tuple[str, str], ...]:
    """Metadata as Envoy adds it."""
    return (("x-forwarded-for", address),)


@dataclass
class Service:
    """One instance with stubs of its public server, and of the ops server for operators."""

    app: App
    database: Database
    home: Path
    channel: grpc.aio.Channel
    ops_channel: grpc.aio.Channel
    auth: Any = field(init=False)
    user: Any = field(init=False)
    admin: Any = field(init=False)

    def __post_init__(self) -> None:
        stub: Any = auth_service_pb2_grpc.AuthServiceStub
        self.auth = stub(self.channel)
        stub = user_service_pb2_grpc.UserServiceStub
        self.user = stub(self.channel)
        stub = auth_admin_service_pb2_grpc.AuthAdminServiceStub
        self.admin = stub(self.ops_channel)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What the database says, or does, asked by the owner of its tables."""
        with psycopg.connect(self.database.admin_url, autocommit=True) as connection:
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description is not None else []

    def mails(self, to: str) -> list[str]:
        """The texts of the mails that lie in the mailbox for an address, the oldest first."""
        found = []
        for file in sorted((self.home / "mailbox").glob("*.eml")):
            message = email.message_from_bytes(file.read_bytes())
            if message["To"] == to:
                found.append(message.get_payload(decode=True).decode())  # type: ignore[union-attr]  # plain text
        return found

    async def code(self, to: str, nth: int = 1) -> str:
        """The code in the nth mail to an address."""
        await eventually(lambda: len(self.mails(to)) >= nth, f"mail {nth} to {to}")
        found = re.match(r"\d{8}", self.mails(to)[nth - 1])
        assert found is not None
        return found.group()

    def new_address(self) -> str:
        """An address that nobody has."""
        return f"user-{next(_NUMBERS)}@example.com"

    async def register(self, address: str = "", password: str = PASSWORD) -> str:
        """A verified user; returns the address."""
        address = address or self.new_address()
        await self.auth.Register(auth_service_pb2.RegisterRequest(email=address, password=password))
        code = await self.code(address)
        await self.auth.VerifyEmail(auth_service_pb2.VerifyEmailRequest(email=address, code=code))
        return address

    async def log_in(self, address: str, password: str = PASSWORD, *, come_from: str = HERE, **more: Any) -> Any:
        """The tokens of a new session."""
        request = auth_service_pb2.LoginRequest(email=address, password=password, **more)
        return await self.auth.Login(request, metadata=coming_from(come_from))

    async def new_session(self) -> Any:
        """The tokens of a new user's session."""
        return await self.log_in(await self.register())

    async def refresh(self, refresh_token: str, come_from: str = HERE) -> Any:
        """New tokens."""
        request = auth_service_pb2.RefreshTokensRequest(refresh_token=refresh_token)
        return await self.auth.RefreshTokens(request, metadata=coming_from(come_from))

    async def until_revoked(self, call: Callable[[], Awaitable[Any]], reason: str = "CREDENTIAL_REVOKED") -> None:
        """Return once a call with a token is refused."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_S
        while True:
            try:
                await call()
            except grpc.aio.AioRpcError as error:
                assert reason in str(error.trailing_metadata()), error  # noqa: PT017 - polled until then
                return
            if loop.time() > deadline:
                pytest.fail(f"still taken after {DEADLINE_S:g} s")
            await asyncio.sleep(0.02)

    async def at_once(self, held: str, value: object, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        """The outcomes of calls that all reach a row's lock before any gets past it; `held` selects the row FOR UPDATE."""
        waiting = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
        with psycopg.connect(self.database.admin_url) as holder:
            holder.execute(held, (value,))
            tasks = [asyncio.ensure_future(call) for call in calls]
            await eventually(lambda: self.rows(waiting) == [(len(tasks),)], f"{len(tasks)} calls wait for the row")
        return await asyncio.gather(*tasks, return_exceptions=True)

    def sample(self, name: str, **labels: str) -> float:
        """A series of this instance."""
        return self.app.registry.get_sample_value(name, labels) or 0.0


def environment(database: Database, home: Path, **more: str) -> Environment:
    """Cheap argon2, and nobody let in without a token."""
    values = {
        **_CHEAP,
        "PINCEX_AUTH_DATABASE_URL": database.auth_url,
        "PINCEX_HOME": str(home),
        "PINCEX_LOG_DIR": str(home / "logs"),
    }
    return Environment({**values, **more})


@asynccontextmanager
async def running_auth(database: Database, home: Path, **more: str) -> AsyncIterator[Service]:
    """An instance; several over one database are several instances."""
    config = Config.read(environment(database, home, **more))
    store, gate_store = await Store.open(database.auth_url), await Store.open(database.auth_url)
    app = App(config, store, gate_store)
    background = await app.start()
    interceptors: Any = [_FromAnywhere()]
    try:
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{app.public.port}", interceptors=interceptors) as channel,
            grpc.aio.insecure_channel(f"127.0.0.1:{app.ops.port}") as ops_channel,
        ):
            yield Service(app, database, home, channel, ops_channel)
    finally:
        await app.stop(background)
        await gate_store.close()
        await store.close()

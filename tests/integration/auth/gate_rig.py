"""A gate on a real database, asked over HTTP as Envoy asks it."""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc import error_details_pb2, status_pb2
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry
from yarl import URL

from exchange.auth.config import SERVICE
from exchange.auth.encryption import Keyring
from exchange.auth.gate.running import RunningGate
from exchange.auth.key_requests import KeyRequest
from exchange.auth.keys import SECRET_PURPOSE, ApiKeys
from exchange.auth.metrics import AuthMetrics
from exchange.auth.signatures import ED25519, HMAC_SHA256
from exchange.auth.store import Store
from exchange.auth.tokens import TokenMaker
from exchange.runtime.clock import SystemClock
from exchange.runtime.config import Secret
from exchange.runtime.edge_proof import EDGE_PROOF_KEY, PROTOCOL_KEY, edge_proof
from exchange.runtime.identity.revocations import POLL_S, Revocations
from exchange.runtime.identity.store import STORE_ERRORS, IdentityStore
from pincex_client.signing import Ed25519Signer, HmacSigner
from tests.integration.auth.rig import HERE, Recorded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from exchange.auth.keys import ApiKey
    from pincex_client.signing import RequestSigner
    from tests.postgres_fixture import Database

SECRET = Secret("a secret of thirty-two characters and more")
PROOF = edge_proof(Secret("what the stack and the gate share"))
WINDOW_MS = 5_000
DEADLINE_S = 20.0
ORDERS = "/api/v1/orders"

_request_ids = count(1)


class OneKey:
    """A signing key that nobody stores."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

        self.key_id = "test"

    def signing_key(self) -> tuple[str, ec.EllipticCurvePrivateKey]:
        return self.key_id, self._key

    def is_known(self, key_id: str) -> bool:
        return key_id == self.key_id


class MovedClock(SystemClock):
    """The machine's clock, moved by a test."""

    def __init__(self) -> None:
        self.moved_s = 0.0

    def time_ns(self) -> int:
        return time.time_ns() + round(self.moved_s * 1e9)

    def monotonic(self) -> float:
        return time.monotonic() + self.moved_s

    def ms(self) -> int:
        return self.time_ns() // 1_000_000

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time_ns() / 1e9, UTC)


@dataclass(frozen=True)
class Answer:
    """What the gate said."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def token(self) -> dict[str, Any]:
        """The claims of the token that goes on with the request."""
        assert self.status == 200, self
        kind, text = self.headers["authorization"].split()
        assert kind == "Bearer"
        claims: dict[str, Any] = jwt.decode(text, options={"verify_signature": False})
        return claims

    @property
    def reason(self) -> str:
        """Why it was refused, as a REST client reads it."""
        assert self.status != 200, self
        return str(self.body["details"][0]["reason"])

    @property
    def metadata(self) -> dict[str, str]:
        found: dict[str, str] = self.body["details"][0]["metadata"]
        return found

    @property
    def grpc_error(self) -> tuple[int, str]:
        """Code and reason as a gRPC client reads them."""
        text = self.headers["grpc-status-details-bin"]
        status = status_pb2.Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert status.code == int(self.headers["grpc-status"])
        return status.code, info.reason


@dataclass
class GateRig:
    """One instance of the gate."""

    database: Database
    gate: RunningGate
    store: Store
    keys: ApiKeys
    clock: MovedClock
    recorded: Recorded
    registry: CollectorRegistry
    revocations: Revocations
    following: asyncio.Task[None]
    http: aiohttp.ClientSession
    signs: OneKey

    async def ask(
        self,
        headers: Mapping[str, str],
        method: str = "GET",
        path: str = ORDERS,
        body: bytes = b"",
        *,
        address: str = HERE,
        grpc: bool = False,
        proof: str = PROOF,
        again: str = "",
    ) -> Answer:
        """As Envoy asks about a request with these headers, the one named `again` twice."""
        sent = CIMultiDict(
            {
                "x-forwarded-for": address,
                "x-request-id": f"test-{next(_request_ids)}",
                PROTOCOL_KEY: "grpc" if grpc else "rest",
                EDGE_PROOF_KEY: proof,
                **headers,
            }
        )
        if again:
            sent.add(again, sent[again])
        # As it is spelled: Envoy sends what the client sent.
        url = f"http://127.0.0.1:{self.gate.port}{path}"
        async with self.http.request(
            method,
            URL(url, encoded=True),
            data=BytesIO(body) if body else b"",
            headers=sent,
            skip_auto_headers=["content-type"],
        ) as answer:
            said = await answer.read()
            is_json = answer.content_type == "application/json"
            return Answer(answer.status, answer.headers, await answer.json() if is_json else said)

    async def signed(
        self, signer: RequestSigner, method: str = "GET", path: str = ORDERS, body: bytes = b"", *, address: str = HERE
    ) -> Answer:
        """A REST request that is signed as it should be."""
        return await self.ask(signer.rest_headers(method, path, body), method, path, body, address=address)

    async def until_refused(self, signer: RequestSigner, *, within_s: float) -> Answer:
        """The first refusal; fails if there is none in time."""
        deadline = time.monotonic() + within_s
        while True:
            answer = await self.signed(signer)
            if answer.status != 200:
                return answer
            assert time.monotonic() < deadline, "it is still let in"

    async def until_admitted(self, signer: RequestSigner) -> Answer:
        """The first admission; fails if there is none in time."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            answer = await self.signed(signer)
            if answer.status == 200:
                return answer
            assert time.monotonic() < deadline, answer

    async def until_answered(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """The first answer that is not 503, once the database is back."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            answer = await ask()
            if answer.status != 503:
                return answer
            assert time.monotonic() < deadline, answer
            await asyncio.sleep(POLL_S / 4)

    async def make_key(
        self,
        user_id: int,
        *,
        algorithm: str = HMAC_SHA256,
        lives: timedelta | None = None,
        scopes: tuple[str, ...] = ("read", "trade"),
        **changes: Any,
    ) -> tuple[ApiKey, RequestSigner]:
        """A key of the user and what signs with it, by this gate's clock."""
        private_key = bytes(range(32))
        ed25519 = algorithm == ED25519
        request = key_request(
            algorithm=algorithm,
            scopes=scopes,
            expires_at=self.clock.now() + lives if lives is not None else None,
            public_key=base64.b64decode(Ed25519Signer("", private_key).public_key) if ed25519 else b"",
            **changes,
        )
        granted = frozenset({"read", "trade", "withdraw", "manage", "admin"})
        key, secret = await self.keys.create(user_id, request, granted=granted, now=self.clock.now())
        if ed25519:
            return key, Ed25519Signer(key.api_key, private_key, clock_ms=self.clock.ms)
        return key, HmacSigner(key.api_key, secret, clock_ms=self.clock.ms)


def key_request(**changes: Any) -> KeyRequest:
    """A request that nothing is wrong with, but for the changes."""
    fields: dict[str, Any] = {
        "label": "a test's",
        "algorithm": HMAC_SHA256,
        "scopes": ("read", "trade"),
        "allowed_addresses": (),
        "account": "",
        "cancel_orders_on_revoke": False,
        "max_orders_per_second": 0,
        "max_open_orders": 0,
        "expires_at": None,
        "public_key": b"",
        "request_id": f"request-{next(_request_ids)}",
    }
    return KeyRequest(**{**fields, **changes})


@asynccontextmanager
async def running_gate(database: Database, *, clock: MovedClock | None = None) -> AsyncIterator[GateRig]:
    """One instance; several over one database share its nonces and revocations."""
    clock = clock or MovedClock()
    store = await Store.open(database.auth_url, application_name=f"{SERVICE} test")
    recorded = Recorded()
    registry = CollectorRegistry()
    metrics = AuthMetrics(registry)
    keys = ApiKeys(store, Keyring(SECRET).box(SECRET_PURPOSE))
    identity = IdentityStore(database.auth_url, application_name="identity test")
    revocations = Revocations(identity, clock)
    await revocations.poll()
    signs = OneKey()
    gate = RunningGate(
        store=store,
        keys=keys,
        tokens=TokenMaker(signs, clock, metrics, 300),
        revocations=revocations,
        security=recorded,
        trail=recorded,
        metrics=metrics,
        clock=clock,
        window_ms=WINDOW_MS,
        edge_proof=PROOF,
    )
    following = asyncio.create_task(_follow(revocations))
    await gate.start()
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        try:
            yield GateRig(database, gate, store, keys, clock, recorded, registry, revocations, following, http, signs)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await gate.stop()
            await identity.close()
            await store.close()


async def _follow(revocations: Revocations) -> None:
    """As `Identity.run` does."""
    while True:
        with suppress(*STORE_ERRORS):
            await revocations.poll()
        await asyncio.sleep(POLL_S)

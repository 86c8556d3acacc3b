"""Signed requests against issue 4: 1,000 a second verified on one core, beside a gate that verifies nothing.

The gate is a process of its own on one core, with its log, security log, nonces in real PostgreSQL and revocations. The
client, which signs, and PostgreSQL have the other core. Left out: Envoy.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
import pytest
import uvloop

from exchange.auth.encryption import Keyring
from exchange.auth.keys import SECRET_PURPOSE, ApiKeys
from exchange.auth.signatures import ED25519, HMAC_SHA256
from exchange.auth.store import Store
from exchange.runtime.config import Secret
from exchange.runtime.edge_proof import EDGE_PROOF_KEY, PROTOCOL_KEY, PROTOCOL_REST, edge_proof
from pincex_client.signing import Ed25519Signer, HmacSigner
from tests.bench.engine_process import cpu_seconds
from tests.bench.gate_process import SECRET, SHARED, GateProcess, running_auth_service, running_open_gate
from tests.postgres_fixture import running_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pincex_client.signing import RequestSigner
    from tests.bench.report import Report
    from tests.postgres_fixture import Database

pytestmark = pytest.mark.bench

REQUESTS = 6_000
ROUNDS = 3
CONNECTIONS = 32
PACE = 1_000
PATH = "/api/v1/orders"
BODY = b'{"client_order_id":"a-1","symbol":"BTCUSD","side":"BUY","order_type":"LIMIT","quantity":"0.5","price":"50000"}'
TITLE = "Signed requests, verified by the gate on one core (target: 1,000/s)"


@dataclass
class Load:
    """What a client did."""

    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.latencies_s) / self.seconds

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1_000


def test_signed_requests_beside_a_gate_that_verifies_nothing(report: Report) -> None:
    gate_core, other_core = 0, (os.cpu_count() or 2) - 1
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {other_core})
    try:
        with (
            running_postgres() as server,
            running_auth_service(database := server.create_database(), gate_core) as gate,
            running_open_gate(gate_core) as beside,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_measure(report, database, gate, beside))
    finally:
        os.sched_setaffinity(0, mine)


async def _measure(report: Report, database: Database, gate: GateProcess, beside: GateProcess) -> None:
    signers = await _make_keys(database)
    figures: dict[str, float] = {}
    cpu_us: dict[str, float] = {}
    for number in range(ROUNDS):
        rates = {}
        for name, at in (("nothing verified", beside), (HMAC_SHA256, gate), (ED25519, gate)):
            requests = [_request(signers.get(name, signers[HMAC_SHA256])) for _ in range(REQUESTS)]
            used = cpu_seconds(at.pid)
            load = await _send(at.port, requests)
            micros = (cpu_seconds(at.pid) - used) / REQUESTS * 1e6
            assert not load.refused
            rates[name] = load.rate
            cpu_us[name] = min(micros, cpu_us.get(name, micros))
            line = (
                f"p50 {load.percentile_ms(0.5):.1f} ms, p99 {load.percentile_ms(0.99):.1f} ms, {CONNECTIONS} in flight"
            )
            report.add(TITLE, f"round {number + 1}, {name}: requests/s", f"{load.rate:,.0f}", line)
            report.add(
                TITLE, "  CPU per request", f"{micros:.0f} us", f"{micros * PACE / 1e6:.0%} of a core at {PACE:,}/s"
            )
        figures = {name: max(rate, figures.get(name, 0.0)) for name, rate in rates.items()}
    for name, signer in signers.items():
        paced = await _send(gate.port, [_request(signer) for _ in range(3 * PACE)], per_second=PACE)
        line = f"p50 {paced.percentile_ms(0.5):.2f} ms, p99 {paced.percentile_ms(0.99):.2f} ms"
        report.add(TITLE, f"{PACE:,}/s offered, {name}: answered/s", f"{paced.rate:,.0f}", line)
        assert not paced.refused
        figures[f"paced {name} p99_ms"] = paced.percentile_ms(0.99)
    report.keep("signed_requests", {**figures, "cpu_us": cpu_us})
    # By its CPU time: how much of the core it gets is the machine's affair.
    assert max(cpu_us.values()) * PACE < 1e6


async def _make_keys(database: Database) -> dict[str, RequestSigner]:
    from tests.integration.auth.gate_rig import key_request

    with psycopg.connect(database.auth_url) as connection:
        connection.execute("INSERT INTO users (email, password_hash) VALUES ('bench@example.com', 'none')")
        row = connection.execute("SELECT user_id, now() FROM users WHERE email = 'bench@example.com'").fetchone()
    assert row is not None
    user_id, now = row
    store = await Store.open(database.auth_url)
    keys = ApiKeys(store, Keyring(Secret(SECRET)).box(SECRET_PURPOSE))
    granted = frozenset({"read", "trade"})
    private = bytes(range(32))
    first, secret = await keys.create(user_id, key_request(), granted=granted, now=now)
    pair = Ed25519Signer("", private)
    public = pair._private_key.public_key().public_bytes_raw()
    request = key_request(algorithm=ED25519, public_key=public)
    second, _ = await keys.create(user_id, request, granted=granted, now=now)
    await store.close()
    return {HMAC_SHA256: HmacSigner(first.api_key, secret), ED25519: Ed25519Signer(second.api_key, private)}


def _request(signer: RequestSigner) -> bytes:
    """As Envoy asks."""
    headers = {
        "host": "gate",
        "content-length": str(len(BODY)),
        "user-agent": "bench",
        "x-forwarded-for": "198.51.100.7",
        "x-request-id": "bench-1",
        EDGE_PROOF_KEY: edge_proof(Secret(SHARED)),
        PROTOCOL_KEY: PROTOCOL_REST,
        **signer.rest_headers("POST", PATH, BODY),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {PATH} HTTP/1.1\r\n{lines}\r\n".encode() + BODY


async def _send(port: int, requests: list[bytes], *, per_second: float = 0.0) -> Load:
    """Send them over CONNECTIONS connections, one after another on each; paced, each at its time and not before."""
    load = Load()
    numbered = iter(enumerate(requests))
    began = time.perf_counter()
    await asyncio.gather(*(_connection(port, numbered, load, began, per_second) for _ in range(CONNECTIONS)))
    load.seconds = time.perf_counter() - began
    return load


async def _connection(
    port: int, numbered: Iterator[tuple[int, bytes]], load: Load, began: float, per_second: float
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number, request in numbered:
        sent = time.perf_counter()
        if per_second:
            # Late is late: what waits for a connection has waited since its time.
            due = began + number / per_second
            if due > sent:
                await asyncio.sleep(due - sent)
            sent = due
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            load.refused += 1
            break
        load.latencies_s.append(time.perf_counter() - sent)
    writer.close()

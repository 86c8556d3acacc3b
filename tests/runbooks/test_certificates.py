"""Certificates in use: an exchange whose three engines, services and edge speak TLS to each other, clients with certificates
of their own, and the runbook's check and renewal typed under load.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from exchange.stack.certificates.description import describe, read_chain
from exchange.stack.certificates.store import CertificateStore
from pincex_client import ExchangeClient, ExchangeError, RetryPolicy, Tls, Unauthenticated, Unavailable
from tests.document_shell import DocumentShell
from tests.edge_http import call
from tests.integration.journal.waiting import until
from tests.integration.recovery.edge import AtTheEdge
from tests.integration.recovery.load import SYMBOL, Load
from tests.stack_fixture import (
    WITH_SETTLEMENT,
    ExchangeStack,
    eventually,
    running_stack,
    stack_folder,
    temporary_home,
)
from tests.unit.docs.examples import examples
from tests.unit.docs.tables import document

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterator

ENGINES = 3
SEED = 811
STEPS = {example.name: example for file in ("RUNBOOKS", "TLS") for example in examples(document(f"docs/{file}.md"))}
# Of the first user, for whom `pincex up` makes an account.
ACCOUNT = "100001"
ACME, STRANGER = "acme", "stranger"
FAR_BELOW = "30000"
# A second is promised; this machine may be busy.
REVOKED_WITHIN_S = 5.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stack() -> Iterator[ExchangeStack]:
    """Three engines, TLS at the edge and inside; each test leaves it as it was."""
    with temporary_home() as home:
        folder = stack_folder(home, PINCEX_TLS="on", PINCEX_INTERNAL_TLS="on", PINCEX_WITHOUT=WITH_SETTLEMENT)
        with running_stack(folder) as found:
            scaled = folder.command("scale", f"trading-engine={ENGINES}")
            assert scaled.returncode == 0, scaled.stderr
            CertificateStore(home).create_client(STRANGER)
            yield found


@pytest.fixture
def store(stack: ExchangeStack) -> CertificateStore:
    return CertificateStore(stack.home)


@pytest.fixture
async def load(stack: ExchangeStack, request: pytest.FixtureRequest) -> AsyncIterator[Load]:
    """Orders all the while, from callers and a session who leave outages to the SDK: whatever it raises is a failure."""
    load = Load(AtTheEdge(stack), SEED, pause_s=0.1, patient=True, run=f"{request.node.name[:40]}-")
    await load.start()
    yield load
    await load.stop()
    assert load.failures == {}


def test_settlement_follows_the_engine_where_services_speak_tls(stack: ExchangeStack) -> None:
    def settled() -> bool:
        status = call(f"{stack.ops_url}/admin/settlement/status").json()
        return status["state"] == "RUNNING" and int(status["settled_sequence"]) > 0

    eventually(settled, "settlement reads the engine's events")
    compared = call(f"{stack.ops_url}/admin/settlement/reconcile", "POST", "{}")
    assert (compared.status, compared.json()["whole"]) == (200, True), compared.text


async def more_orders(load: Load) -> None:
    count = load.answered_in_session
    await until(lambda: load.answered_in_session > count)


async def types(stack: ExchangeStack, step: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shell = DocumentShell(stack.folder, stack.home.parent, {"PATH": path})
    return await asyncio.to_thread(shell.type, STEPS[step])


def client(stack: ExchangeStack, name: str) -> ExchangeClient:
    """At the mTLS listener, with a certificate and nothing else."""
    store = CertificateStore(stack.home)
    tls = Tls(authority=store.authority, certificate=store.client(name))
    return ExchangeClient(stack.status()["mtls_url"], tls=tls, policy=RetryPolicy(deadline=5.0))


async def on_ops(stack: ExchangeStack, path: str, body: str) -> dict[str, Any]:
    answer = await asyncio.to_thread(call, f"{stack.ops_url}{path}", "POST", body)
    assert answer.status == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def served(stack: ExchangeStack, store: CertificateStore) -> bytes:
    """The edge's certificate, in DER form, as a new connection is shown it."""
    host, _, port = stack.status()["tls_url"].removeprefix("https://").partition(":")
    context = ssl.create_default_context(cafile=str(store.authority))
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


def der(file: Path) -> bytes:
    return read_chain(file)[0].public_bytes(Encoding.DER)


async def test_engines_that_speak_tls_agree_and_hand_leadership_over_under_load(
    stack: ExchangeStack, load: Load
) -> None:
    exchange = AtTheEdge(stack)
    await exchange.until_whole(ENGINES)
    async with exchange.client() as operator:
        # Whichever instance gets this puts it through to the leader.
        handed = await operator.admin.hand_over(reason="a test")
    await until(lambda: another_leads(exchange, handed.instance))
    await asyncio.to_thread(stack.restart, await exchange.leader())
    await exchange.until_whole(ENGINES)
    await more_orders(load)
    await exchange.compared(ENGINES)


async def another_leads(exchange: AtTheEdge, than: str) -> bool:
    return await exchange.leader() not in {"", than}


async def test_an_engine_takes_calls_over_tls_only_and_from_services_only(
    stack: ExchangeStack, store: CertificateStore
) -> None:
    port = stack.instance("trading-engine-1")["ports"]["ops_grpc"]
    async with ExchangeClient(f"127.0.0.1:{port}", policy=RetryPolicy(deadline=0.2)) as plain:
        with pytest.raises(Unavailable):
            await plain.health()
    shown = await asyncio.to_thread(
        stack.folder.command,
        *("--target", f"https://127.0.0.1:{port}", "--ca", str(store.services_authority)),
        *("--certificate", str(store.service("envoy")), "book", SYMBOL),
    )
    assert shown.returncode == 0, shown.stderr


async def test_a_name_that_is_asked_for_later_is_in_use_a_moment_later(
    stack: ExchangeStack, store: CertificateStore
) -> None:
    await types(stack, "make-certificates")

    async def shows_the_new_one() -> bool:
        return await served(stack, store) == der(store.edge)

    await until(shows_the_new_one)
    assert "DNS:exchange.example.com" in describe(read_chain(store.edge)[0]).names


async def test_the_runbooks_check_and_renewal_leave_orders_and_streams_alone(
    stack: ExchangeStack, store: CertificateStore, load: Load
) -> None:
    await more_orders(load)
    assert "expires in" not in await types(stack, "check-certificates")
    files = [store.edge, store.service("envoy"), store.service("trading-engine")]
    before = [der(file) for file in files]

    await types(stack, "renew-certificates")

    assert all(der(file) != old for file, old in zip(files, before, strict=True))

    async def shows_the_new_one() -> bool:
        return await served(stack, store) == der(store.edge)

    await until(shows_the_new_one)
    # With new certificates on all sides of new connections.
    await asyncio.to_thread(stack.restart, "trading-engine-2")
    await AtTheEdge(stack).until_whole(ENGINES)
    await more_orders(load)
    await AtTheEdge(stack).compared(ENGINES)


async def test_an_institution_trades_with_its_certificate_alone_until_it_is_taken_away(stack: ExchangeStack) -> None:
    subject = f'"subject_uri": "spiffe://pincex/client/{ACME}"'
    async with AtTheEdge(stack).client() as operator:
        await operator.admin.credit_account(ACCOUNT, "USD", "1000", request_id="institution")
    await types(stack, "allow-client")
    async with client(stack, ACME) as acme:
        order = await acme.place_order(SYMBOL, "BUY", "0.01", FAR_BELOW)
        assert [balance.asset for balance in await acme.list_balances()] == ["USD"]
        assert (await acme.cancel_order(order.order_id)).status == "CANCELLED"
        async with client(stack, STRANGER) as stranger:
            with pytest.raises(Unauthenticated, match="this client certificate is not allowed here"):
                await stranger.list_balances()

        stream = acme.balance_stream()
        await anext(aiter(stream))
        ends = asyncio.create_task(end_of(stream))
        await on_ops(stack, "/admin/certificates:remove", f'{{{subject}, "reason": "a test"}}')

        async with asyncio.timeout(REVOKED_WITHIN_S):
            assert isinstance(await ends, Unauthenticated), "and it does not come back"
        await until(lambda: is_refused(acme), REVOKED_WITHIN_S)
        for _ in range(2 * ENGINES):
            assert await is_refused(acme), "on whichever engine"


async def end_of(stream: AsyncIterable[object]) -> ExchangeError | None:
    """What a stream ends with."""
    try:
        async for _ in stream:
            pass
    except ExchangeError as error:
        return error
    return None


async def is_refused(exchange: ExchangeClient) -> bool:
    """Whether the gate refuses it: engines refuse the tokens that it has given by themselves, each as soon as it knows."""
    try:
        await exchange.list_balances()
    except Unauthenticated as refusal:
        return refusal.reason == "UNAUTHENTICATED"
    return False

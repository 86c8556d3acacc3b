"""TLS and mTLS at a real Envoy: who gets in, as whom, and what a renewal changes."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from exchange.runtime.edge_metrics import STATS_QUERY, edge_metrics
from exchange.stack.certificates import delivery
from exchange.stack.certificates.description import read_chain, read_key
from exchange.stack.certificates.issue import CLIENT, Pair, issue, new_authority
from exchange.stack.certificates.settings import read_tls
from exchange.stack.certificates.store import CertificateStore
from exchange.stack.certificates.wiring import decide
from exchange.stack.config import PortSetting
from exchange.stack.ports import PortBook
from pincex_client import ExchangeClient, RetryPolicy, Tls, Unauthenticated, Unavailable
from tests.edge_http import Answer, call
from tests.integration.journal.waiting import until
from tests.integration.stack.edge_rig import GOOD_CERTIFICATE, running_edge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from exchange.stack.edge.plan import EdgePlan
    from tests.integration.stack.edge_rig import EdgeRig

# Loopback, and not where the plain listeners are.
HOST = "127.0.0.2"
HEALTH, BALANCES, ORDERS = "/api/v1/health", "/api/v1/balances", "/api/v1/orders"
DEADLINE_S = 20.0
NOW = datetime.now(UTC)


class SecureEdge:
    """A running edge with both listeners, and its certificates: `acme` and `stranger` are clients."""

    def __init__(self, folder: Path) -> None:
        self.store = CertificateStore(folder)
        self.rig: EdgeRig
        self._folder = folder

    def plan(self, plan: EdgePlan) -> EdgePlan:
        """The plan with TLS, and the certificates where Envoy looks for them."""
        book, setting = PortBook(self._folder / "tls-ports.json"), PortSetting("", "a test", 0, HOST)
        ports = {"tls": lambda: book.choose("tls", setting), "mtls": lambda: book.choose("mtls", setting)}
        settings = read_tls({"PINCEX_TLS": "on", "PINCEX_EDGE_HOST": HOST})
        found = decide(self._folder, settings, {}, ports, has_gate=plan.identity is not None)
        self.delivery = found.delivery(plan.secrets_dir, lambda _: None)
        self.delivery.begin()
        self.tls, self.mtls = found.listeners
        return replace(plan, tls_listeners=found.listeners)

    @property
    def authority(self) -> Pair:
        """Whom the listeners trust, with its key."""
        key = read_key(self.store.folder / "authority-key.pem")
        return Pair(read_chain(self.store.authority)[0], key)  # type: ignore[arg-type]

    def context(self, certificate: Path | None = None, alpn: str = "http/1.1") -> ssl.SSLContext:
        """A client that trusts the authority; `certificate` is its own, with the key."""
        context = ssl.create_default_context(cafile=str(self.store.authority))
        context.set_alpn_protocols([alpn])
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def connect(self, context: ssl.SSLContext, port: int | None = None) -> http.client.HTTPSConnection:
        """A connection, to the mTLS listener unless another port is said; it connects with its first request."""
        return http.client.HTTPSConnection(HOST, port or self.mtls.port, context=context, timeout=DEADLINE_S)

    def ask(
        self,
        context: ssl.SSLContext,
        path: str = BALANCES,
        headers: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> Answer:
        """One request on a connection of its own. Raises OSError where the handshake is refused."""
        connection = self.connect(context, port)
        try:
            return ask(connection, path, headers)
        finally:
            connection.close()

    @contextmanager
    def handshake(self, context: ssl.SSLContext, port: int) -> Iterator[ssl.SSLSocket]:
        """A bare connection."""
        with (
            socket.create_connection((HOST, port), DEADLINE_S) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as secure,
        ):
            yield secure

    def shown(self) -> bytes:
        """The certificate that a new connection is shown, in DER form."""
        with self.handshake(self.context(), self.tls.port) as secure:
            return secure.getpeercert(binary_form=True) or b""

    def client(self, name: str | None, port: int) -> ExchangeClient:
        """The SDK's, with the certificate of a client, or none."""
        certificate = self.store.client(name) if name is not None else None
        tls = Tls(authority=self.store.authority, certificate=certificate)
        return ExchangeClient(f"https://{HOST}:{port}", tls=tls, policy=RetryPolicy(deadline=0.5))


def ask(connection: http.client.HTTPSConnection, path: str, headers: Mapping[str, str] | None = None) -> Answer:
    connection.request("GET", path, headers=dict(headers or {}))
    response = connection.getresponse()
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, found, response.read())


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureEdge]:
    folder = tmp_path_factory.mktemp("tls")
    made = SecureEdge(folder)
    with running_edge(folder, anonymous=True, change=made.plan) as rig:
        made.rig = rig
        made.store.create_client("acme")
        made.store.create_client("stranger")
        yield made


@pytest.fixture
def acme(edge: SecureEdge) -> ssl.SSLContext:
    return edge.context(edge.store.client("acme"))


def test_the_public_edge_is_there_over_tls_in_both_protocols(edge: SecureEdge) -> None:
    for alpn in ("http/1.1", "h2"):
        with edge.handshake(edge.context(alpn=alpn), edge.tls.port) as secure:
            assert (secure.selected_alpn_protocol(), secure.version()) == (alpn, "TLSv1.3")
    answer = edge.ask(edge.context(), headers=edge.rig.bearer(), port=edge.tls.port)
    assert answer.status == 200
    assert "authorization" in answer.headers["x-fake-seen"].split(",")
    refused = edge.ask(edge.context(), "/admin/engine/state", port=edge.tls.port)
    assert (refused.status, refused.reason()) == (404, "UNKNOWN_PATH")


def test_plain_text_is_no_way_into_a_tls_listener(edge: SecureEdge) -> None:
    for port in (edge.tls.port, edge.mtls.port):
        with socket.create_connection((HOST, port), DEADLINE_S) as plain:
            plain.sendall(b"GET /api/v1/health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"HTTP/" not in plain.recv(1024)


@pytest.mark.parametrize(
    ("ciphers", "welcome"), [("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES128-SHA", False)]
)
def test_tls_1_2_is_taken_with_authenticated_ciphers_only(edge: SecureEdge, ciphers: str, *, welcome: bool) -> None:
    context = edge.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    if welcome:
        assert edge.ask(context, HEALTH, port=edge.tls.port).status == 200
    else:
        with pytest.raises(ssl.SSLError, match=r"(?i)handshake"):
            edge.ask(context, HEALTH, port=edge.tls.port)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_1_is_refused(edge: SecureEdge) -> None:
    context = edge.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol"):
        edge.ask(context, HEALTH, port=edge.tls.port)


def test_a_certificate_that_is_allowed_calls_as_its_account(edge: SecureEdge, acme: ssl.SSLContext) -> None:
    answer = edge.ask(acme)

    assert answer.status == 200
    assert "authorization" in answer.headers["x-fake-seen"].split(","), "the gate's token goes on"
    asked = edge.rig.auth.asked[-1]["headers"]
    assert asked["x-forwarded-client-cert"].endswith(f";URI={GOOD_CERTIFICATE}")


def test_each_request_is_judged_public_ones_too(edge: SecureEdge) -> None:
    answer = edge.ask(edge.context(edge.store.client("stranger")), HEALTH)

    assert (answer.status, answer.json()["code"], answer.reason()) == (401, 16, "SIGNATURE_REFUSED")


def test_what_a_client_says_about_its_certificate_is_not_believed(edge: SecureEdge) -> None:
    claim = {"x-forwarded-client-cert": f"Hash=00;URI={GOOD_CERTIFICATE}", "X-Forwarded-Client-Cert": "URI=x"}
    stranger = edge.context(edge.store.client("stranger"))
    assert edge.ask(stranger, headers=claim).status == 401
    assert edge.rig.auth.asked[-1]["headers"]["x-forwarded-client-cert"].endswith(
        ";URI=spiffe://pincex/client/stranger"
    )

    # Nor on the listener that asks for no certificate: the gate is not even asked there.
    before = len(edge.rig.auth.asked)
    seen = edge.ask(edge.context(), HEALTH, claim, port=edge.tls.port).headers["x-fake-seen"]
    assert len(edge.rig.auth.asked) == before
    assert "x-forwarded-client-cert" not in seen


def verdicts(edge: SecureEdge) -> dict[str, int]:
    """How many handshakes of the mTLS listener failed, and for what."""
    found = call(f"http://127.0.0.1:{edge.rig.plan.admin_port}/stats?filter=^listener.{HOST}_{edge.mtls.port}.ssl")
    lines = [line.rpartition(": ") for line in found.text.splitlines() if ".ssl.fail_verify_" in line]
    return {name.rpartition(".")[2]: int(count) for name, _, count in lines}


def refused_in_the_handshake(edge: SecureEdge, context: ssl.SSLContext, why: str) -> None:
    asked, before = len(edge.rig.auth.asked), verdicts(edge)
    # A client of TLS 1.3 has finished by then, and learns of it as it writes or reads.
    with pytest.raises(ssl.SSLError):
        edge.ask(context)
    assert len(edge.rig.auth.asked) == asked
    assert verdicts(edge) == {**before, why: before[why] + 1}


def test_without_a_certificate_the_handshake_fails(edge: SecureEdge) -> None:
    refused_in_the_handshake(edge, edge.context(), "fail_verify_no_cert")


def test_an_expired_certificate_is_refused_in_the_handshake(edge: SecureEdge, tmp_path: Path) -> None:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(GOOD_CERTIFICATE)]
    old = issue(edge.authority, "acme", names, [CLIENT], NOW - timedelta(days=91))
    (tmp_path / "old.pem").write_text(old.pem)
    refused_in_the_handshake(edge, edge.context(tmp_path / "old.pem"), "fail_verify_error")


async def test_an_operator_reads_why_a_handshake_failed(edge: SecureEdge, acme: ssl.SSLContext, tmp_path: Path) -> None:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier("spiffe://pincex/client/late")]
    (tmp_path / "late.pem").write_text(issue(edge.authority, "late", names, [CLIENT], NOW - timedelta(days=91)).pem)
    assert edge.ask(acme).status == 200
    with pytest.raises(ssl.SSLError):
        edge.ask(edge.context(tmp_path / "late.pem"))

    def handshakes() -> list[dict[str, str]]:
        lines = [json.loads(line) for line in edge.rig.plan.access_log.read_text().splitlines()]
        return [line for line in lines if "handshake" in line]

    await until(lambda: "spiffe://pincex/client/late" in edge.rig.plan.access_log.read_text())
    line = handshakes()[-1]
    assert "certificate_has_expired" in line["handshake"]
    assert (line["listener"], line["certificate_subject"]) == ("mtls", "CN=late,O=PinCEX")
    assert (line["certificate_uri"], line["address"]) == ("spiffe://pincex/client/late", "127.0.0.1")
    assert all(each["handshake"] for each in handshakes()), "what was not refused is no line"


@pytest.mark.parametrize("name", ["PinCEX development authority", "another"])
def test_a_certificate_of_another_authority_is_refused_in_the_handshake(
    edge: SecureEdge, tmp_path: Path, name: str
) -> None:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(GOOD_CERTIFICATE)]
    (tmp_path / "foreign.pem").write_text(issue(new_authority(name, NOW), "acme", names, [CLIENT], NOW).pem)
    refused_in_the_handshake(edge, edge.context(tmp_path / "foreign.pem"), "fail_verify_error")


@pytest.mark.parametrize("which", ["edge", "service"])
def test_a_certificate_that_is_no_client_s_is_refused_in_the_handshake(edge: SecureEdge, which: str) -> None:
    edge.store.create_services(["trading-engine"])
    file = edge.store.edge if which == "edge" else edge.store.service("trading-engine")
    refused_in_the_handshake(edge, edge.context(file), "fail_verify_error")


def test_a_connection_is_never_resumed_without_a_look_at_the_certificate(
    edge: SecureEdge, acme: ssl.SSLContext
) -> None:
    acme.maximum_version = ssl.TLSVersion.TLSv1_2
    with edge.handshake(acme, edge.mtls.port) as first:
        session = first.session
    plain = socket.create_connection((HOST, edge.mtls.port), DEADLINE_S)
    with acme.wrap_socket(plain, server_hostname=HOST, session=session) as second:
        assert not second.session_reused


async def test_the_sdk_speaks_tls_and_shows_its_certificate(edge: SecureEdge) -> None:
    async with edge.client("acme", edge.mtls.port) as acme:
        await acme.list_balances()
    async with edge.client("stranger", edge.mtls.port) as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.list_balances()
    async with edge.client(None, edge.mtls.port) as nobody:
        with pytest.raises(Unavailable):
            await nobody.list_balances()
    async with edge.client(None, edge.tls.port) as anonymous:
        await anonymous.list_balances()
    async with ExchangeClient(f"https://{HOST}:{edge.tls.port}", policy=RetryPolicy(deadline=0.5)) as trusting:
        with pytest.raises(Unavailable):
            await trusting.list_balances()


@pytest.mark.parametrize(
    ("target", "tls", "message"),
    [
        ("127.0.0.1:1", Tls(), "is not https://"),
        ("http://127.0.0.1:1", Tls(), "is not https://"),
        ("https://127.0.0.1:1", Tls(authority="/nowhere/ca.pem"), "/nowhere/ca.pem cannot be read"),
        ("https://127.0.0.1:1", Tls(key="/nowhere/key.pem"), "without its certificate|no use"),
    ],
)
async def test_the_sdk_never_falls_back_to_plain_text(target: str, tls: Tls, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExchangeClient(target, tls=tls)


def test_metrics_say_when_each_certificate_expires(edge: SecureEdge) -> None:
    found = call(f"http://127.0.0.1:{edge.rig.plan.admin_port}/stats/prometheus?{STATS_QUERY}").text

    ends = {
        name: int(read_chain(file)[0].not_valid_after_utc.timestamp())
        for name, file in (("edge", edge.store.edge), ("client-authority", edge.store.authority))
    }
    samples = {f'pincex_certificate_expiry_seconds{{certificate="{name}"}} {end}' for name, end in ends.items()}
    assert samples == {line for line in edge_metrics(found).splitlines() if line.startswith("pincex_certificate")}


@asynccontextmanager
async def followed(edge: SecureEdge, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """While changes of certificates are handed over, as the supervisor does."""
    monkeypatch.setattr(delivery, "LOOK_INTERVAL_S", 0.05)
    following = asyncio.create_task(edge.delivery.follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_renewal_under_load_is_seen_by_new_connections_and_ends_no_old_one(
    edge: SecureEdge, acme: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, statuses = threading.Event(), list[int]()

    def load() -> None:
        while not stop.is_set():
            statuses.append(edge.ask(acme).status)

    def stream() -> list[str]:
        slow = {"x-fake-sleep-ms": "3000"}
        return edge.ask(acme, "/api/v1/orderbook-stream/BTCUSD", slow).text.splitlines()

    kept = edge.connect(acme)
    assert (await asyncio.to_thread(ask, kept, BALANCES)).status == 200
    loads = [asyncio.create_task(asyncio.to_thread(load)) for _ in range(2)]
    streaming = asyncio.create_task(asyncio.to_thread(stream))
    try:
        async with followed(edge, monkeypatch):
            await until(lambda: len(statuses) > 5)
            edge.store.renew(["edge"])
            new = read_chain(edge.store.edge)[0].public_bytes(Encoding.DER)
            await until(lambda: edge.shown() == new)
            count = len(statuses)
            await until(lambda: len(statuses) > count + 5)
        assert not streaming.done(), "it has begun with the old one"
        assert len(await streaming) == 3
        assert (await asyncio.to_thread(ask, kept, BALANCES)).status == 200
    finally:
        stop.set()
        await asyncio.gather(*loads)
        kept.close()
    assert set(statuses) == {200}


async def test_clients_of_an_authority_that_takes_over_get_in_and_those_of_the_old_one_no_more(
    edge: SecureEdge, tmp_path: Path, acme: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = new_authority("next", NOW)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(GOOD_CERTIFICATE)]
    (tmp_path / "next.pem").write_text(issue(authority, "acme", names, [CLIENT], NOW).pem)
    following_client = edge.context(tmp_path / "next.pem")

    def gets_in(context: ssl.SSLContext) -> bool:
        try:
            return edge.ask(context).status == 200
        except ssl.SSLError:
            return False

    before = edge.store.authority.read_text()
    try:
        async with followed(edge, monkeypatch):
            edge.store.authority.write_text(before + authority.certificate_pem)
            await until(lambda: gets_in(following_client))
            assert gets_in(acme), "both are trusted meanwhile"
            edge.store.authority.write_text(authority.certificate_pem)
            await until(lambda: not gets_in(acme))
            assert gets_in(following_client)
    finally:
        edge.store.authority.write_text(before)
        edge.delivery.begin()
        await until(lambda: gets_in(acme))

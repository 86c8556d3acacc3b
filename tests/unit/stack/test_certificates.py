"""Certificates of our own and of others: made, judged, renewed, handed to Envoy."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from typer.testing import CliRunner

from exchange.stack.certificates import delivery
from exchange.stack.certificates.commands import app
from exchange.stack.certificates.delivery import Delivery, PairFiles
from exchange.stack.certificates.description import describe, read_chain, read_key
from exchange.stack.certificates.issue import SERVER, Pair, host_name, issue, new_authority
from exchange.stack.certificates.settings import read_tls
from exchange.stack.certificates.store import CertificateStore, Entry
from exchange.stack.certificates.wiring import decide
from exchange.stack.errors import StackError
from tests.integration.journal.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NOW = datetime.now(UTC)
# What a test makes is good from five minutes before that on, and it may run long after this was read.
LATER = NOW + timedelta(hours=1)
LONG_AGO = NOW - timedelta(days=200)


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore(tmp_path)


def leaf(authority: Pair, now: datetime = NOW) -> Pair:
    return issue(authority, "localhost", [host_name("localhost")], [SERVER], now)


def names(file: Path) -> set[str]:
    return set(describe(read_chain(file)[0]).names)


def fingerprint(file: Path) -> str:
    return describe(read_chain(file)[0]).fingerprint


def entry(folder: Path, pair: Pair, authority: Pair | None = None, key: Pair | None = None) -> Entry:
    """A certificate on the disk; `key` is another pair whose key lies beside it."""
    (folder / "leaf.pem").write_text(pair.certificate_pem)
    (folder / "leaf-key.pem").write_text((key or pair).pem)
    (folder / "ca.pem").write_text((authority or pair).certificate_pem)
    return Entry("edge", folder / "leaf.pem", key=folder / "leaf-key.pem", authority=folder / "ca.pem")


def test_the_edge_s_certificate_is_for_this_machine_and_what_is_asked_for(store: CertificateStore) -> None:
    assert store.create_edge(["10.1.2.3", "Exchange.Example.com"])

    local = {"DNS:localhost", "IP:127.0.0.1", "IP:::1"}
    assert names(store.edge) == {*local, "IP:10.1.2.3", "DNS:exchange.example.com"}
    assert Entry("edge", store.edge, key=store.edge, authority=store.authority).problem(LATER, 30) is None
    lifetime = read_chain(store.edge)[0].not_valid_after_utc - NOW
    assert timedelta(days=89) < lifetime <= timedelta(days=91)
    authority = read_chain(store.authority)[0]
    assert authority.not_valid_after_utc - NOW > timedelta(days=3640)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_what_is_there_stays_and_a_name_that_lacks_is_added(store: CertificateStore) -> None:
    store.create_edge(["10.1.2.3"])
    first, authority = fingerprint(store.edge), fingerprint(store.authority)

    assert not store.create_edge()
    assert fingerprint(store.edge) == first
    assert store.create_edge(["10.9.9.9"])
    assert {"IP:10.1.2.3", "IP:10.9.9.9"} < names(store.edge)
    assert fingerprint(store.authority) == authority


def test_a_certificate_with_little_time_is_made_anew(store: CertificateStore) -> None:
    store.create_edge()
    authority = Pair(read_chain(store.authority)[0], read_key(store.folder / "authority-key.pem"))  # type: ignore[arg-type]
    store.edge.write_text(leaf(authority, NOW - timedelta(days=61)).pem)

    assert store.create_edge()
    assert describe(read_chain(store.edge)[0]).days_left(LATER) >= 89


def test_only_their_owner_may_read_any_of_the_files(store: CertificateStore) -> None:
    store.create_edge()
    store.create_client("acme")
    store.create_services(["trading-engine"])

    files = [file for file in store.folder.rglob("*") if file.is_file()]
    assert len(files) == 8
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert {folder.stat().st_mode & 0o077 for folder in (store.folder, store.folder / "clients")} == {0}


def test_who_makes_one_at_the_same_time_gets_the_same_authority(store: CertificateStore) -> None:
    start = threading.Barrier(4)

    def make(number: int) -> None:
        start.wait()
        CertificateStore(store.folder.parent).create_client(f"client-{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(4)))

    entries = store.entries()
    assert len(entries) == 5
    assert [one.problem(LATER, 30) for one in entries] == [None] * 5


def test_a_client_and_a_service_are_named_by_uri_and_signed_by_different_authorities(store: CertificateStore) -> None:
    assert store.create_client("acme") == "spiffe://pincex/client/acme"
    store.create_services(["trading-engine"])

    assert names(store.client("acme")) == {"URI:spiffe://pincex/client/acme"}
    service = store.service("trading-engine")
    named = {"DNS:trading-engine.pincex.internal", "URI:spiffe://pincex/service/trading-engine"}
    assert names(service) == {*named, "IP:127.0.0.1"}
    as_client = Entry("x", service, key=service, authority=store.authority)
    assert as_client.problem(LATER, 0) == "is not signed by CN=PinCEX development authority,O=PinCEX"


@pytest.mark.parametrize("name", ["", "../edge", ".hidden", "a/b", "a b", "x" * 65, "ü", "a\n"])
def test_a_name_that_is_none_makes_nothing(store: CertificateStore, name: str) -> None:
    with pytest.raises(StackError, match="is no name"):
        store.create_client(name)
    assert not store.folder.exists()


@pytest.mark.parametrize("host", ["a b", "-x", "x" * 300, "http://x", "a..b", "*", "ü.example"])
def test_a_host_that_is_none_is_refused(store: CertificateStore, host: str) -> None:
    with pytest.raises(StackError, match="neither a host's name nor an IP address"):
        store.create_edge([host])


def test_a_renewed_certificate_has_another_key_and_the_same_names_and_uses(store: CertificateStore) -> None:
    store.create_edge(["10.1.2.3"])
    store.create_client("acme")
    before = read_chain(store.edge)[0]

    assert store.renew(["edge"]) == ["edge"]
    after = read_chain(store.edge)[0]
    assert before.public_key() != after.public_key()
    for kind in (x509.SubjectAlternativeName, x509.ExtendedKeyUsage):
        assert before.extensions.get_extension_for_class(kind) == after.extensions.get_extension_for_class(kind)
    with pytest.raises(StackError, match="there is no client/nobody to renew; there are: edge, client/acme"):
        store.renew(["client/nobody"])
    with pytest.raises(StackError, match="there is a client acme already"):
        store.create_client("acme")


def test_without_names_only_what_is_due_is_renewed(store: CertificateStore) -> None:
    store.create_edge()
    store.create_client("acme")
    assert store.renew([]) == []
    authority = Pair(read_chain(store.authority)[0], read_key(store.folder / "authority-key.pem"))  # type: ignore[arg-type]
    store.edge.write_text(leaf(authority, NOW - timedelta(days=61)).pem)

    assert store.renew([]) == ["edge"]


def test_an_authority_that_has_expired_signs_nothing(store: CertificateStore) -> None:
    store.create_edge()
    old = new_authority("old", NOW - timedelta(days=4000))
    store.authority.write_text(old.certificate_pem)
    (store.folder / "authority-key.pem").write_text(old.pem)

    with pytest.raises(StackError, match="cannot sign: it has expired"):
        store.create_client("acme")


def test_what_is_wrong_with_a_certificate_is_said(tmp_path: Path) -> None:
    authority, other = new_authority("ours", NOW), new_authority("other", NOW)
    good = leaf(authority)
    assert entry(tmp_path, good, authority).problem(LATER, 30) is None
    assert entry(tmp_path, good, authority).problem(LATER, 91) == "expires in 89 days"
    assert entry(tmp_path, good, other).problem(LATER, 30) == "is not signed by CN=other,O=PinCEX"
    assert entry(tmp_path, good, authority, key=leaf(authority)).problem(LATER, 0) == (
        "has another key than the private key beside it"
    )
    old = new_authority("ours", LONG_AGO)
    assert entry(tmp_path, leaf(old, LONG_AGO), old).problem(LATER, 0) == "has expired"
    assert entry(tmp_path, leaf(authority, NOW + timedelta(days=1)), authority).problem(LATER, 0) == "is not valid yet"


def test_files_that_hold_something_else_are_named_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "edge.pem"
    pair = new_authority("x", NOW)
    encrypted = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"planted"))
    for text, message in (
        (b"planted secret", "holds no private key in PEM form"),
        (encrypted, "is encrypted"),
        (b"x" * (1 << 21), "is larger than"),
    ):
        file.write_bytes(text)
        with pytest.raises(StackError, match=message) as refused:
            read_key(file)
        assert "planted" not in str(refused.value)
    file.write_text("nothing")
    with pytest.raises(StackError, match="holds no certificate"):
        read_chain(file)
    with pytest.raises(StackError, match="cannot be read: No such file"):
        read_chain(tmp_path / "absent.pem")


def test_a_chain_of_others_is_judged_link_by_link(tmp_path: Path) -> None:
    authority, other = new_authority("ours", NOW), new_authority("other", NOW)
    found = entry(tmp_path, leaf(authority))
    alone = Entry("edge", found.file, key=found.key)
    (tmp_path / "leaf.pem").write_text(leaf(authority).certificate_pem + other.certificate_pem)
    assert alone.problem(LATER, 0) == "is not signed by CN=other,O=PinCEX"
    trusted = Entry("client-authority", tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_text(authority.certificate_pem + other.certificate_pem)
    assert trusted.problem(LATER, 30) is None
    (tmp_path / "ca.pem").write_text(
        authority.certificate_pem + new_authority("old", NOW - timedelta(4000)).certificate_pem
    )
    assert trusted.problem(LATER, 30) == "has expired"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"PINCEX_EDGE_HOST": "example.com"}, "PINCEX_EDGE_HOST must be an IP address"),
        ({"PINCEX_TLS_KEY": "/k.pem"}, "without PINCEX_TLS_CERTIFICATE"),
        ({"PINCEX_TLS": "maybe"}, "PINCEX_TLS must be on or off"),
        ({"PINCEX_INTERNAL_TLS": "auto"}, "PINCEX_INTERNAL_TLS must be on or off"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(StackError, match=message):
        read_tls(values)


def listening(home: Path, values: Mapping[str, str], *, has_gate: bool = True) -> list[tuple[str, str, int]]:
    ports = {"tls": lambda: 8443, "mtls": lambda: 8444}
    found = decide(home, read_tls(values), {"trading": "trading-engine"}, ports, has_gate=has_gate)
    return [(one.name, one.host, one.port) for one in found.listeners]


def test_tls_listens_where_there_are_certificates_or_it_is_asked_for(tmp_path: Path) -> None:
    assert listening(tmp_path, {}) == []
    assert listening(tmp_path, {"PINCEX_TLS": "on", "PINCEX_EDGE_HOST": "127.0.0.2"}) == [
        ("tls", "127.0.0.2", 8443),
        ("mtls", "127.0.0.2", 8444),
    ]
    assert "IP:127.0.0.2" in names(CertificateStore(tmp_path).edge)
    assert [name for name, _, _ in listening(tmp_path, {})] == ["tls", "mtls"], "they are there now"
    assert listening(tmp_path, {"PINCEX_TLS": "off"}) == []
    assert [name for name, _, _ in listening(tmp_path, {}, has_gate=False)] == ["tls"], "nobody could name the account"


def test_certificates_of_an_operator_take_the_place_of_ours(tmp_path: Path) -> None:
    given = {"PINCEX_TLS_CERTIFICATE": str(tmp_path / "leaf.pem"), "PINCEX_TLS_KEY": str(tmp_path / "leaf-key.pem")}
    assert [name for name, _, _ in listening(tmp_path, given)] == ["tls"], "whose clients are trusted is not said"
    with_clients = {**given, "PINCEX_TLS_CLIENT_CA": __file__}
    assert [name for name, _, _ in listening(tmp_path, with_clients)] == ["tls", "mtls"]
    assert not CertificateStore(tmp_path).folder.exists()


def handed(secrets_dir: Path) -> str:
    """The certificate that Envoy has."""
    [secret] = json.loads((secrets_dir / "edge.json").read_text())["resources"]
    chain: str = secret["tls_certificate"]["certificate_chain"]["inline_string"]
    return chain


async def test_a_replaced_pair_is_handed_over_once_its_parts_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "LOOK_INTERVAL_S", 0.01)
    authority = new_authority("ours", NOW)
    first, second = leaf(authority), leaf(authority)
    found = entry(tmp_path, first, authority)
    secrets, said = tmp_path / "secrets", list[str]()
    pairs = {"edge": PairFiles(found.file, tmp_path / "leaf-key.pem")}
    handing = Delivery(secrets, pairs, {}, lambda: None, lambda event: said.append(str(event["text"])))
    handing.begin()
    assert handed(secrets) == first.certificate_pem
    assert (secrets / "edge.json").stat().st_mode & 0o777 == 0o600
    following = asyncio.create_task(handing.follow())
    try:
        # Written in place, the certificate before its key.
        found.file.write_text(second.certificate_pem)
        await until(lambda: bool(said))
        assert "stays as it was" in said[0]
        assert "another key" in said[0]
        assert handed(secrets) == first.certificate_pem
        (tmp_path / "leaf-key.pem").write_text(second.pem)
        await until(lambda: handed(secrets) == second.certificate_pem)
        await until(lambda: len(said) == 2)
        assert "is replaced" in said[1], "the same complaint is not repeated"
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_what_is_due_of_ours_is_renewed_while_the_exchange_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(delivery, "RENEW_INTERVAL_S", 0.01)
    settings = read_tls({"PINCEX_TLS": "on", "PINCEX_INTERNAL_TLS": "on"})
    ports = {"tls": lambda: 8443, "mtls": lambda: 8444}
    found = decide(tmp_path, settings, {"trading": "trading-engine"}, ports, has_gate=True)
    store = found.store
    authority = Pair(read_chain(store.authority)[0], read_key(store.folder / "authority-key.pem"))  # type: ignore[arg-type]
    store.edge.write_text(leaf(authority, NOW - timedelta(days=61)).pem)
    engine = store.service("trading-engine")
    engine.unlink()
    handing = found.delivery(tmp_path / "secrets", lambda _: None)
    handing.begin()
    following = asyncio.create_task(handing.follow())
    try:
        await until(lambda: describe(read_chain(store.edge)[0]).days_left(LATER) >= 89)
        await until(lambda: store.edge.read_text().endswith(handed(tmp_path / "secrets")))
        await until(engine.exists)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def test_a_start_with_a_certificate_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    old = new_authority("ours", LONG_AGO)
    found = entry(tmp_path, leaf(old, LONG_AGO), old)
    handing = Delivery(
        tmp_path / "secrets", {"edge": PairFiles(found.file, tmp_path / "leaf-key.pem")}, {}, lambda: None, print
    )
    with pytest.raises(StackError, match="has expired"):
        handing.begin()
    assert not (tmp_path / "secrets").exists()


def run(home: Path, *arguments: str, **values: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments), env={"PINCEX_HOME": str(home), **values})
    return done.exit_code, done.output


def test_the_check_prints_each_end_and_fails_for_what_expires(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = CertificateStore(tmp_path / ".pincex")
    store.create_edge()
    assert run(store.folder.parent, "check")[0] == 0
    assert run(store.folder.parent, "check", "--days", "91")[0] == 1
    old = new_authority("ours", LONG_AGO)
    entry(tmp_path, leaf(old, LONG_AGO), old)
    given = {"PINCEX_TLS_CERTIFICATE": str(tmp_path / "leaf.pem"), "PINCEX_TLS_KEY": str(tmp_path / "leaf-key.pem")}
    status, printed = run(store.folder.parent, "check", **given)
    assert (status, "has expired" in printed) == (1, True)


def test_the_commands_make_show_and_renew(tmp_path: Path) -> None:
    home = tmp_path / ".pincex"
    status, printed = run(home, "create", "--host", "exchange.example.com", PINCEX_EDGE_HOST="127.0.0.2")
    assert (status, "DNS:exchange.example.com" in printed, "IP:127.0.0.2" in printed) == (0, True, True)
    assert "is there already" in run(home, "create")[1]
    assert "spiffe://pincex/client/acme" in run(home, "client", "acme")[1]
    assert [run(home, "client", name)[0] for name in ("acme", "../x")] == [1, 1]

    status, printed = run(home, "list", "--json")
    shown = {one["name"]: one for one in json.loads(printed)["certificates"]}
    assert (status, set(shown)) == (0, {"authority", "edge", "client/acme"})
    acme = shown["client/acme"]
    assert acme["names"] == ["URI:spiffe://pincex/client/acme"]
    assert acme["issuer"] == shown["authority"]["subject"] == "CN=PinCEX development authority,O=PinCEX"
    assert acme["days_left"] == 89
    assert acme["fingerprint"] == fingerprint(CertificateStore(home).client("acme"))

    assert run(home, "renew")[1] == "nothing expires within 30 days\n"
    assert run(home, "renew", "client/acme") == (0, "renewed client/acme\n")
    assert run(home, "renew", "nothing")[0] == 1
    assert fingerprint(CertificateStore(home).client("acme")) != acme["fingerprint"]


def test_what_cannot_be_read_is_named_beside_the_others(tmp_path: Path) -> None:
    store = CertificateStore(tmp_path / ".pincex")
    store.create_edge()
    store.edge.write_text("nothing")
    for command in ("list", "check"):
        status, printed = run(store.folder.parent, command)
        assert (status, "holds no certificate" in printed, "authority" in printed) == (1, True, True)

"""The certificates that we made, in the data folder.

    authority.pem, authority-key.pem                       signs the edge's certificate and clients'
    edge.pem, clients/NAME.pem                             a private key and its certificate each
    services-authority.pem, services-authority-key.pem     signs services', which no client's certificate can stand for
    services/NAME.pem

Every file has mode 0600 and is replaced whole.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from exchange.runtime.service_names import TRUST_DOMAIN, service_host, service_uri
from exchange.stack.certificates.description import (
    Description,
    alternative_names,
    chain_problem,
    describe,
    key_problem,
    read_chain,
    read_key,
    time_problem,
)
from exchange.stack.certificates.issue import CLIENT, SERVER, Pair, host_name, issue, new_authority
from exchange.stack.certificates.settings import EDGE, LOOPBACK, RENEW_DAYS
from exchange.stack.errors import StackError
from exchange.stack.files import write_private

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FOLDER = "certificates"
# What a certificate of the edge is always good for.
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
AUTHORITY_NAME = "PinCEX development authority"
SERVICES_AUTHORITY_NAME = "PinCEX services authority"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate on the disk. Without a `key` the file is a set of authorities that are trusted, each by itself;
    `authority` is None where it is not known, or the certificate is its own.
    """

    name: str
    file: Path
    key: Path | None = None
    authority: Path | None = None

    def certificate(self) -> x509.Certificate:
        """The leaf. Raises StackError."""
        return read_chain(self.file)[0]

    def description(self) -> Description:
        """What the leaf says. Raises StackError."""
        return describe(self.certificate())

    def problem(self, now: datetime, days: int) -> str | None:
        """Why it must not be used, or not for `days` more; None if all is well."""
        try:
            chain = read_chain(self.file)
            authority = read_chain(self.authority)[0] if self.authority is not None else None
            key = read_key(self.key) if self.key is not None else None
        except StackError as error:
            return str(error)
        if key is None:
            return next((found for found in (time_problem(one, now, days) for one in chain) if found), None)
        return time_problem(chain[0], now, days) or chain_problem(chain, authority) or key_problem(chain[0], key)


class CertificateStore:
    """Ours, below `home`. What changes something holds a lock, so that two commands make one authority."""

    def __init__(self, home: Path) -> None:
        """Makes nothing yet."""
        self.folder = home / FOLDER
        self.authority = self.folder / "authority.pem"
        self.edge = self.folder / f"{EDGE}.pem"
        self.services_authority = self.folder / "services-authority.pem"

    def client(self, name: str) -> Path:
        """Where a client's key and certificate are."""
        return self.folder / "clients" / f"{name}.pem"

    def service(self, name: str) -> Path:
        """Where a service's key and certificate are."""
        return self.folder / "services" / f"{name}.pem"

    def create_edge(self, hosts: Sequence[str] = ()) -> bool:
        """Makes the authority and the edge's certificate, or a new one of these where it lacks one of `hosts` or has no
        30 days left; returns whether it did. Raises StackError.
        """
        wanted = [host_name(host) for host in (*LOCAL_NAMES, *hosts)]
        with self._locked():
            authority = self._authority(self.authority, AUTHORITY_NAME)
            present = alternative_names(read_chain(self.edge)[0]) if self.edge.exists() else []
            names = [*present, *(name for name in wanted if name not in present)]
            if names == present and not self._is_due(self.edge):
                return False
            self._write(self.edge, issue(authority, LOCAL_NAMES[0], list(dict.fromkeys(names)), [SERVER], _now()))
            return True

    def create_client(self, name: str) -> str:
        """Makes a client's certificate, which must not be there yet; returns its URI. Raises StackError."""
        uri = f"{TRUST_DOMAIN}/client/{_checked(name)}"
        with self._locked():
            if self.client(name).exists():
                raise StackError(f"there is a client {name} already: `pincex certs renew client/{name}` renews it")
            authority = self._authority(self.authority, AUTHORITY_NAME)
            self._write(
                self.client(name), issue(authority, name, [x509.UniformResourceIdentifier(uri)], [CLIENT], _now())
            )
        return uri

    def create_services(self, names: Sequence[str]) -> None:
        """Makes what is not there yet of the services' certificates, and renews those that have no 30 days left. Raises
        StackError.
        """
        with self._locked():
            authority = self._authority(self.services_authority, SERVICES_AUTHORITY_NAME)
            for name in names:
                file = self.service(name)
                if not file.exists() or self._is_due(file):
                    self._write(file, issue(authority, name, _service_names(name), [SERVER, CLIENT], _now()))

    def renew(self, names: Sequence[str]) -> list[str]:
        """New keys and certificates for the same names and uses; without `names` for all that are due within 30 days.
        Returns which. Raises StackError.
        """
        leaves = {
            entry.name: entry for entry in self.entries() if entry.key is not None and entry.authority is not None
        }
        unknown = [name for name in names if name not in leaves]
        if unknown:
            raise StackError(f"there is no {unknown[0]} to renew; there are: {', '.join(leaves) or 'none'}")
        with self._locked():
            due = list(names) or [name for name, entry in leaves.items() if self._is_due(entry.file)]
            for name in due:
                self._renew(leaves[name])
        return due

    def entries(self) -> list[Entry]:
        """All that we made: authorities, the edge's, clients', services'."""
        found = [
            Entry("authority", self.authority, key=_key_of(self.authority)),
            Entry(EDGE, self.edge, key=self.edge, authority=self.authority),
            *self._leaves("client", self.client("x").parent, self.authority),
            Entry("services-authority", self.services_authority, key=_key_of(self.services_authority)),
            *self._leaves("service", self.service("x").parent, self.services_authority),
        ]
        return [entry for entry in found if entry.file.exists()]

    @staticmethod
    def _leaves(kind: str, folder: Path, authority: Path) -> list[Entry]:
        files = sorted(folder.glob("[!.]*.pem"))
        return [Entry(f"{kind}/{file.stem}", file, key=file, authority=authority) for file in files]

    def _renew(self, entry: Entry) -> None:
        if entry.authority is None:
            raise StackError(f"{entry.name} is not signed by an authority of ours")
        old = entry.certificate()
        usages = list(old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        common_name = str(old.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
        authority = _read_authority(entry.authority)
        self._write(entry.file, issue(authority, common_name, alternative_names(old), usages, _now()))

    def _authority(self, file: Path, name: str) -> Pair:
        if not file.exists():
            made = new_authority(name, _now())
            write_private(_key_of(file), made.pem)
            write_private(file, made.certificate_pem)
        return _read_authority(file)

    @staticmethod
    def _is_due(file: Path) -> bool:
        return describe(read_chain(file)[0]).days_left(_now()) < RENEW_DAYS

    @staticmethod
    def _write(file: Path, pair: Pair) -> None:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(file, pair.pem)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _service_names(service: str) -> list[x509.GeneralName]:
    """Those that other services insist on, and the address where a person on this machine asks a single instance."""
    uri = x509.UniformResourceIdentifier(service_uri(service))
    return [x509.DNSName(service_host(service)), uri, host_name(LOOPBACK)]


def _key_of(authority: Path) -> Path:
    return authority.with_name(f"{authority.stem}-key.pem")


def _read_authority(file: Path) -> Pair:
    """Raises StackError where it must not sign any more."""
    entry = Entry(file.stem, file, key=_key_of(file))
    key = read_key(_key_of(file))
    problem = entry.problem(_now(), 0)
    if problem is not None or not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StackError(f"the authority {file} cannot sign: it {problem or 'has a key that is not ours'}")
    return Pair(entry.certificate(), key)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StackError(f"{name!r} is no name: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit")
    return name


def _now() -> datetime:
    return datetime.now(UTC)

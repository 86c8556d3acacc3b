"""Reads certificates and says what is wrong with them; any PEM will do, an operator's own too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

# No chain that anybody uses is as large.
PEM_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Description:
    """What `pincex certs list` shows. `names` are `DNS:...`, `IP:...`, `URI:...`; times are UTC."""

    subject: str
    names: tuple[str, ...]
    issuer: str
    not_before: datetime
    not_after: datetime
    fingerprint: str

    def days_left(self, now: datetime) -> int:
        """Whole days until it expires, negative afterwards."""
        return (self.not_after - now) // timedelta(days=1)


def describe(certificate: x509.Certificate) -> Description:
    """The facts of one certificate."""
    return Description(
        subject=certificate.subject.rfc4514_string(),
        names=tuple(_shown(name) for name in alternative_names(certificate)),
        issuer=certificate.issuer.rfc4514_string(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """The subject alternative names; none where the extension is missing."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(extension.value)


def read_chain(file: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, at least one; other blocks are passed over. Raises StackError."""
    text = read_pem(file)
    try:
        return x509.load_pem_x509_certificates(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise StackError(f"{file} holds no certificate in PEM form: {error}") from None


def read_key(file: Path) -> PrivateKeyTypes:
    """The private key of a PEM file. Raises StackError, which never repeats what is in the file."""
    text = read_pem(file)
    try:
        return load_pem_private_key(text, password=None)
    except TypeError:
        raise StackError(f"the private key in {file} is encrypted: the edge needs one without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise StackError(f"{file} holds no private key in PEM form") from None


def key_pem(key: PrivateKeyTypes) -> str:
    """A private key in PKCS #8, unencrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def chain_pem(chain: list[x509.Certificate]) -> str:
    """Certificates in PEM form, in their order."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain).decode()


def read_pem(file: Path) -> bytes:
    """The bytes of a file of bearable size. Raises StackError."""
    try:
        with file.open("rb") as opened:
            text = opened.read(PEM_LIMIT_BYTES + 1)
    except OSError as error:
        raise StackError(f"{file} cannot be read: {error.strerror}") from None
    if len(text) > PEM_LIMIT_BYTES:
        raise StackError(f"{file} is larger than {PEM_LIMIT_BYTES} bytes")
    return text


def time_problem(certificate: x509.Certificate, now: datetime, days: int) -> str | None:
    """What is wrong with its times, if it shall be good for `days` more."""
    if now < certificate.not_valid_before_utc:
        return "is not valid yet"
    if now >= certificate.not_valid_after_utc:
        return "has expired"
    left = describe(certificate).days_left(now)
    return f"expires in {left} days" if certificate.not_valid_after_utc - now < timedelta(days=days) else None


def chain_problem(chain: list[x509.Certificate], authority: x509.Certificate | None) -> str | None:
    """Whether each certificate is signed by the next one, and the last by `authority` where that is known."""
    known = [*chain, authority] if authority is not None and chain[-1] != authority else chain
    for certificate, issuer in pairwise(known):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError):
            return f"is not signed by {issuer.subject.rfc4514_string()}"
    return None


def key_problem(certificate: x509.Certificate, key: PrivateKeyTypes) -> str | None:
    """Whether the key is that of the certificate."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        return "has another key than the private key beside it"
    return None


def _shown(name: x509.GeneralName) -> str:
    kinds = {x509.DNSName: "DNS", x509.IPAddress: "IP", x509.UniformResourceIdentifier: "URI", x509.RFC822Name: "email"}
    return f"{kinds.get(type(name), 'other')}:{name.value}"

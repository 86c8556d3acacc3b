"""What the environment says about TLS."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOOPBACK = "127.0.0.1"
# What the edge's certificate is called.
EDGE = "edge"
# A certificate with less time than this is renewed, and complained of.
RENEW_DAYS = 30
# `auto`: TLS listeners where there are certificates.
AUTO, ON, OFF = "auto", "on", "off"
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """`host` is the address that the TLS listeners bind to. `certificate`, `key` and `client_authority` are PEM files of an
    operator's own, None for ours; `internal` is TLS between the edge and services, and among these.
    """

    mode: str
    host: str
    certificate: Path | None
    key: Path | None
    client_authority: Path | None
    internal: bool

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the listeners."""
        return ip_address(self.host).is_loopback


def read_tls(values: Mapping[str, str]) -> TlsSettings:
    """Reads PINCEX_TLS, PINCEX_EDGE_HOST, PINCEX_TLS_*, PINCEX_INTERNAL_TLS. Raises StackError."""
    host = values.get("PINCEX_EDGE_HOST") or LOOPBACK
    try:
        ip_address(host)
    except ValueError:
        raise StackError(f"PINCEX_EDGE_HOST must be an IP address of this machine, not {host!r}") from None
    certificate = _file(values, "PINCEX_TLS_CERTIFICATE")
    key = _file(values, "PINCEX_TLS_KEY")
    if key is not None and certificate is None:
        raise StackError("PINCEX_TLS_KEY is set without PINCEX_TLS_CERTIFICATE")
    return TlsSettings(
        mode=_switch(values, "PINCEX_TLS", AUTO),
        host=host,
        certificate=certificate,
        # A file may hold both.
        key=key or certificate,
        client_authority=_file(values, "PINCEX_TLS_CLIENT_CA"),
        internal=_switch(values, "PINCEX_INTERNAL_TLS", OFF) == ON,
    )


def _file(values: Mapping[str, str], variable: str) -> Path | None:
    return Path(values[variable]).expanduser().absolute() if values.get(variable) else None


def _switch(values: Mapping[str, str], variable: str, default: str) -> str:
    text = (values.get(variable) or default).lower()
    if text in _ON:
        return ON
    if text in _OFF:
        return OFF
    if text != default:
        raise StackError(f"{variable} must be on or off, not {text!r}")
    return default

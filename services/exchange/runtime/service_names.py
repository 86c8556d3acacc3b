"""What services are called in their certificates, wherever they listen."""

from __future__ import annotations

from typing import Final

TRUST_DOMAIN: Final = "spiffe://pincex"
_DOMAIN: Final = "pincex.internal"


def service_uri(service: str) -> str:
    """The URI by which Envoy knows a service."""
    return f"{TRUST_DOMAIN}/service/{service}"


def service_host(service: str) -> str:
    """The same for gRPC's clients: they can compare nothing but a host's name."""
    return f"{service}.{_DOMAIN}"

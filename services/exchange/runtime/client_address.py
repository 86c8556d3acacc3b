"""From which IP address a call comes."""

import ipaddress
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from exchange.runtime.principal import Metadata, is_loopback_peer

FORWARDED_KEY: Final = "x-forwarded-for"
_MAX_CACHED: Final = 4_096
_THIS_MACHINE: Final = "127.0.0.1"


def client_address(peer: str, metadata: Metadata) -> str:
    """Return the caller's address, without port, an IPv4-mapped one as IPv4.

    `peer` is gRPC's own form. A peer on this machine is Envoy, which writes the address that it sees behind whatever the
    client claims (`stack/edge/listeners.py`): only the last hop is believed. From any other peer the header is not
    believed at all. Without a usable address it is that of the peer.
    """
    if is_loopback_peer(peer):
        forwarded: str | bytes = ""
        for key, value in metadata:
            if key == FORWARDED_KEY:
                forwarded = value
        if isinstance(forwarded, str) and forwarded:
            address = normal_address(forwarded.rpartition(",")[2].strip())
            if address:
                return address
    return _peer_address(peer)


@lru_cache(maxsize=_MAX_CACHED)
def normal_address(text: str) -> str:
    """The one form of an IP address, an IPv4-mapped one as IPv4; "" for what is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _peer_address(peer: str) -> str:
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return _THIS_MACHINE
    return normal_address(unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]) or _THIS_MACHINE

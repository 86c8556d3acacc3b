"""Whose address a call has: the last hop that Envoy wrote, and never what a client claims."""

from __future__ import annotations

import pytest

from exchange.runtime.client_address import client_address

LOCAL = "ipv4:127.0.0.1:5000"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (LOCAL, [], "127.0.0.1"),
        (LOCAL, ["203.0.113.7"], "203.0.113.7"),
        (LOCAL, ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (LOCAL, ["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (LOCAL, ["198.51.100.1, nonsense"], "127.0.0.1"),
        (LOCAL, ["::ffff:203.0.113.7"], "203.0.113.7"),
        (LOCAL, ["2001:DB8::1"], "2001:db8::1"),
        ("ipv6:%5B::1%5D:5000", ["203.0.113.7"], "203.0.113.7"),
        ("ipv6:[2001:db8::2%25eth0]:5000", ["203.0.113.7"], "2001:db8::2"),
        ("ipv4:192.0.2.9:5000", ["203.0.113.7"], "192.0.2.9"),
        ("unix:/run/exchange", [], "127.0.0.1"),
        ("unix:/run/exchange", ["203.0.113.7"], "203.0.113.7"),
        ("ipv4:", [], "127.0.0.1"),
    ],
)
def test_the_address_is_the_last_hop_of_this_machines_envoy(peer: str, forwarded: list[str], address: str) -> None:
    metadata = [("user-agent", "any"), *(("x-forwarded-for", hop) for hop in forwarded)]
    assert client_address(peer, metadata) == address


def test_bytes_in_the_header_are_not_believed() -> None:
    assert client_address(LOCAL, [("x-forwarded-for", b"203.0.113.7")]) == "127.0.0.1"

"""Which pages may open a connection, whatever they write into the header."""

from __future__ import annotations

import pytest

from exchange.websocket.origins import is_allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://exchange.example:8443", True),
        ("HTTPS://Exchange.Example:8443", True),
        ("http://localhost:3000", True),
        ("https://exchange.example", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://user@localhost", False),
        ("ftp://exchange.example:8443", False),
        ("null", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_a_page_of_another_place_may_not_connect(origin: str, *, allowed: bool) -> None:
    assert is_allowed([origin], ["exchange.example:8443"]) is allowed


def test_no_origin_is_no_page_and_two_are_refused() -> None:
    assert is_allowed([], ["exchange.example"])
    assert not is_allowed(["http://localhost", "http://localhost"], ["exchange.example"])
    assert not is_allowed(["https://exchange.example"], ["exchange.example", "evil.example"])

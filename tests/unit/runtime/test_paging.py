"""Page tokens: a position, bound to its filters."""

from __future__ import annotations

import base64

import pytest

from exchange.runtime.errors import ServiceError
from exchange.runtime.paging import make_token, number_position, page_size, read_token


def test_a_token_gives_its_position_back_for_the_same_filters_only() -> None:
    token = make_token("BTC", "demo", 3)

    assert read_token(token, "demo", 3) == "BTC"
    assert read_token("", "demo") == ""
    for filters in (("demo",), ("demo", 4), ("maker", 3), ()):
        with pytest.raises(ServiceError, match="page_token"):
            read_token(token, *filters)


def test_a_numeric_position_is_a_number() -> None:
    assert number_position(make_token("17", "x"), "x") == 17
    assert number_position("", "x") == 0


@pytest.mark.parametrize("position", ["abc", "-1", "1.5", "²", "9" * 21, "9" * 5_000])
def test_a_forged_position_is_refused_like_any_other_token(position: str) -> None:
    with pytest.raises(ServiceError) as caught:
        number_position(make_token(position, "x"), "x")

    assert caught.value.reason_name == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize(
    "token", ["A", "AAAA", "not base64!", "é", "=" * 8, base64.urlsafe_b64encode(b"\xff" * 12).decode(), "A" * 10_000]
)
def test_what_this_server_did_not_make_is_refused(token: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read_token(token, "x")

    assert caught.value.reason_name == "INVALID_PAGE_TOKEN"


def test_page_sizes_have_a_default_and_bounds() -> None:
    assert (page_size(0), page_size(1), page_size(500)) == (100, 1, 500)
    assert (page_size(0, 20), page_size(1000, 1000)) == (20, 1000)
    for asked in (-1, 501):
        with pytest.raises(ServiceError, match="page_size"):
            page_size(asked)

"""Decimal text and whole units: exact both ways, and nothing else accepted."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.domain.decimals import (
    MAX_DECIMALS,
    MAX_DIGITS,
    DecimalError,
    PrecisionError,
    decimals_of,
    format_units,
    parse_units,
)


@pytest.mark.parametrize(
    ("text", "decimals", "units"),
    [
        ("1.5", 8, 150_000_000),
        ("1.0", 0, 1),
        ("0", 2, 0),
        ("000.10", 1, 1),
        ("5.", 0, None),
        ("50000.00", 2, 5_000_000),
        ("0.000000000001", 12, 1),
        ("9" * MAX_DIGITS, 0, 10**MAX_DIGITS - 1),
        ("1.50", 1, 15),
        ("1.5000", 1, 15),
    ],
)
def test_text_becomes_whole_units(text: str, decimals: int, units: int | None) -> None:
    if units is None:
        with pytest.raises(DecimalError):
            parse_units(text, decimals)
    else:
        assert parse_units(text, decimals) == units


@pytest.mark.parametrize(
    "text",
    [
        "", ".", ".5", "5.", "-1", "+1", "1e5", "1E5", "NaN", "nan", "inf", "Infinity", " 1", "1 ", "1 0", "1_000", "1,5",
        "1.2.3", "0x10", "\u0661\u0662", "1.\u0665", "²", "½", "1\n", "1" * (MAX_DIGITS + 2), "0." + "1" * MAX_DIGITS,
        "--1", "1.-5", "1.+5", "$1", "\x001",
    ],
)  # fmt: skip
def test_anything_but_digits_and_one_point_is_refused(text: str) -> None:
    with pytest.raises(DecimalError):
        parse_units(text, 2)


@pytest.mark.parametrize(("text", "decimals"), [("0.001", 2), ("1.5", 0), ("0.0000000000001", MAX_DECIMALS)])
def test_digits_that_would_be_lost_are_refused(text: str, decimals: int) -> None:
    with pytest.raises(PrecisionError):
        parse_units(text, decimals)


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [
        (150, 2, "1.50"),
        (5, 3, "0.005"),
        (0, 2, "0.00"),
        (7, 0, "7"),
        (-5, 2, "-0.05"),
        (-7, 0, "-7"),
        (10**20, 8, "1000000000000.00000000"),
    ],
)
def test_units_become_text_with_all_decimals(units: int, decimals: int, text: str) -> None:
    assert format_units(units, decimals) == text


@pytest.mark.parametrize(("text", "needed"), [("0.25", 2), ("5", 0), ("5.00", 0), ("0.10", 1), ("0.000001", 6)])
def test_how_many_decimals_a_number_needs(text: str, needed: int) -> None:
    assert decimals_of(text) == needed


@given(st.integers(0, 10**25), st.integers(0, MAX_DECIMALS))
def test_units_survive_the_way_to_text_and_back(units: int, decimals: int) -> None:
    assert parse_units(format_units(units, decimals), decimals) == units


@given(st.text(st.sampled_from("0123456789.-+eE_ "), max_size=12), st.integers(0, 6))
def test_what_is_accepted_is_what_decimal_says(text: str, decimals: int) -> None:
    try:
        units = parse_units(text, decimals)
    except (DecimalError, PrecisionError):
        return
    assert Decimal(text).scaleb(decimals) == units

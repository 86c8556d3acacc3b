"""Scales: between decimal text and the integers of the core."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core import commands as cmd
from exchange.trading.core.constants import MAX_AMOUNT, MAX_LOTS, MAX_TICKS
from exchange.trading.core.engine import Engine
from exchange.trading.service import units as units_module
from exchange.trading.service.units import MarketUnits, amount_units, units_or_zero


def scales(tick: int, price_decimals: int, lot: int) -> MarketUnits:
    """BTC with 8 decimals against USD with 8."""
    engine = Engine()
    definition = ("BTCUSD", 0, 1, tick, price_decimals, lot, 1, 0, 0, 0, 0, 0, 50_000, 2, 0)
    for command in (
        cmd.create_asset("ops", "BTC", 8),
        cmd.create_asset("ops", "USD", 8),
        cmd.create_market("ops", definition),
    ):
        engine.apply(engine.state.sequence + 1, 1, command)
        assert engine.result[2] == 0
    return MarketUnits(engine.state, engine.state.markets[0])


@pytest.fixture
def cents() -> MarketUnits:
    """Ticks of 0.01, lots of 0.00001."""
    return scales(1, 2, 1_000)


def reason_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        call(*arguments)
    return caught.value.reason_name


def test_prices_and_quantities_go_there_and_back(cents: MarketUnits) -> None:
    for text, ticks, shown in (("50000", 5_000_000, "50000.00"), ("0.01", 1, "0.01"), ("1.5000", 150, "1.50")):
        assert cents.ticks(text, "price") == ticks
        assert cents.ticks(text, "price") == ticks, "the second time from memory"
        assert cents.price(ticks) == shown
    for text, lots, shown in (("1", 100_000, "1.00000"), ("0.00001", 1, "0.00001"), ("2.50", 250_000, "2.50000")):
        assert cents.lots(text, "quantity") == lots
        assert cents.lots(text, "quantity") == lots
        assert cents.quantity(lots) == shown


def test_a_tick_of_a_quarter_and_a_lot_of_two(cents: MarketUnits) -> None:
    quarter = scales(25, 2, 200_000_000)

    assert (quarter.tick_size, quarter.lot_size) == ("0.25", "2")
    assert (quarter.ticks("10.75", "price"), quarter.price(43)) == (43, "10.75")
    assert (quarter.lots("6", "quantity"), quarter.quantity(3)) == (3, "6")
    assert reason_of(quarter.ticks, "10.80", "price") == "PRICE_OFF_TICK"
    assert reason_of(quarter.lots, "3", "quantity") == "QUANTITY_OFF_LOT"
    assert (cents.tick_size, cents.lot_size) == ("0.01", "0.00001")


def test_no_price_is_no_text(cents: MarketUnits) -> None:
    assert (cents.price(0), cents.average_price(0, 0)) == ("", "")


def test_the_average_price_is_cut_not_rounded(cents: MarketUnits) -> None:
    # 2 USD for 0.00003 BTC: 66666.666...
    assert cents.average_price(2 * 10**8, 3) == "66666.66666666"


def test_an_error_names_field_value_and_step(cents: MarketUnits) -> None:
    with pytest.raises(ServiceError) as caught:
        cents.ticks("1.005", "stop_price")
    assert caught.value.metadata == {"field": "stop_price", "value": "1.005", "tick_size": "0.01"}
    with pytest.raises(ServiceError) as caught:
        cents.lots("0.000001", "quantity")
    assert caught.value.metadata == {"field": "quantity", "value": "0.000001", "lot_size": "0.00001"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "FIELD_REQUIRED"),
        ("0", "NOT_POSITIVE"),
        ("-3.5", "NOT_POSITIVE"),
        ("-.", "INVALID_DECIMAL"),
        ("--1", "INVALID_DECIMAL"),
        ("1e5", "INVALID_DECIMAL"),
        ("nan", "INVALID_DECIMAL"),
        ("9" * 39, "NUMBER_TOO_LARGE"),
        ("9" * 40, "INVALID_DECIMAL"),
    ],
)
def test_what_is_no_positive_decimal_is_refused(cents: MarketUnits, text: str, reason: str) -> None:
    assert reason_of(cents.ticks, text, "price") == reason
    assert reason_of(cents.lots, text, "quantity") == reason


def test_the_largest_price_and_quantity_fit_and_one_more_does_not(cents: MarketUnits) -> None:
    assert cents.ticks(f"{MAX_TICKS // 100}", "price") == MAX_TICKS
    assert reason_of(cents.ticks, f"{MAX_TICKS // 100}.01", "price") == "NUMBER_TOO_LARGE"
    assert cents.lots(f"{MAX_LOTS // 100_000}", "quantity") == MAX_LOTS
    assert reason_of(cents.lots, f"{MAX_LOTS // 100_000}.00001", "quantity") == "NUMBER_TOO_LARGE"


def test_what_is_remembered_is_bounded(cents: MarketUnits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, "_CACHE_SIZE", 4)
    for number in range(1, 40):
        assert cents.price(cents.ticks(f"{number}", "price")) == f"{number}.00"
        assert cents.quantity(cents.lots(f"{number}", "quantity")) == f"{number}.00000"

    for remembered in (cents.known_ticks, cents.known_lots, cents._prices, cents._quantities):
        assert len(remembered) <= 6
    assert cents.price(0) == ""


def test_amounts_are_bounded_and_exact() -> None:
    assert amount_units("1.5", 8, "amount") == 150_000_000
    assert units_or_zero("0", 8, "amount") == 0
    assert units_or_zero(str(MAX_AMOUNT), 0, "amount") == MAX_AMOUNT
    for text, reason in (
        ("0", ErrorReason.NOT_POSITIVE),
        ("-1", ErrorReason.NOT_POSITIVE),
        ("", ErrorReason.FIELD_REQUIRED),
        ("x", ErrorReason.INVALID_DECIMAL),
        ("0.000000001", ErrorReason.INVALID_FIELD),
        (str(MAX_AMOUNT), ErrorReason.NUMBER_TOO_LARGE),
    ):
        assert reason_of(amount_units, text, 8, "amount") == ErrorReason.Name(reason), text

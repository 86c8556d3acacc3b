"""Numbers of the core that also stand in the contract are the same there."""

import pytest

from exchange.trading.core import constants, reasons
from pincex.common.v1 import errors_pb2
from pincex.trading.v1 import types_pb2

pytestmark = pytest.mark.core


def test_reasons_are_those_of_the_contract() -> None:
    contract = dict(errors_pb2.ErrorReason.items())
    ours = {name: value for name, value in vars(reasons).items() if name.isupper() and name != "DONE"}
    assert {name: contract.get(name) for name in ours} == ours


@pytest.mark.parametrize(
    ("enum", "names"),
    [
        (types_pb2.Side, {"BUY": "BUY", "SELL": "SELL"}),
        (types_pb2.OrderType, {name: name for name in ("LIMIT", "MARKET", "STOP", "STOP_LIMIT")}),
        (types_pb2.TimeInForce, {name: name for name in ("GTC", "IOC", "FOK", "GTD")}),
        (types_pb2.OrderStatus, {name: name for name in ("PENDING", "PARTIAL", "FILLED", "CANCELLED")}),
        (types_pb2.MarketMode, {name: name for name in ("OPEN", "CANCEL_ONLY", "HALTED")}),
    ],
)
def test_constants_are_those_of_the_contract(enum, names: dict[str, str]) -> None:
    values = dict(enum.items())
    assert {name: values[theirs] for name, theirs in names.items()} == {name: vars(constants)[name] for name in names}


def test_self_trade_preventions_and_cancel_reasons_have_the_contracts_numbers() -> None:
    stps = dict(types_pb2.SelfTradePrevention.items())
    assert (stps["SELF_TRADE_PREVENTION_UNSPECIFIED"], len(stps)) == (constants.STP_DEFAULT, 5)
    assert [name for name, _ in sorted(stps.items(), key=lambda item: item[1])][2:] == [
        "CANCEL_NEWEST", "CANCEL_OLDEST", "CANCEL_BOTH",
    ]  # fmt: skip
    reasons_of_cancels = {
        value for name, value in vars(constants).items() if name.startswith("CANCEL_") and name != "CANCEL_ONLY"
    }
    assert reasons_of_cancels <= set(types_pb2.CancelReason.values())


def test_no_sum_or_amount_leaves_63_bits() -> None:
    largest_hold = constants.MAX_AMOUNT + constants.MAX_AMOUNT * constants.MAX_FEE_PPM // constants.PPM
    assert largest_hold < 2**62
    assert constants.MAX_TICKS < 2**62
    assert constants.MAX_LOTS < 2**62

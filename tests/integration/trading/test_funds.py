"""FundsService: money moves by journaled commands alone, each once, with the reasons of CreditAccount for bad input."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.trading.core.constants import MAX_AMOUNT
from pincex.trading.v1 import funds_service_pb2 as pb
from pincex.trading.v1 import funds_service_pb2_grpc
from tests.integration.trading.engine_app import Exchange, refused

pytestmark = pytest.mark.each_role

BAD_AMOUNTS = [
    ("", "FIELD_REQUIRED"),
    ("0", "NOT_POSITIVE"),
    ("0.00", "NOT_POSITIVE"),
    ("-1", "NOT_POSITIVE"),
    ("1e3", "INVALID_DECIMAL"),
    ("NaN", "INVALID_DECIMAL"),
    ("Infinity", "INVALID_DECIMAL"),
    ("+1", "INVALID_DECIMAL"),
    (" 1", "INVALID_DECIMAL"),
    ("1,000", "INVALID_DECIMAL"),
    ("1.0000000001", "INVALID_FIELD"),
    (str(MAX_AMOUNT), "NUMBER_TOO_LARGE"),
]
BAD_NAMES = [
    ("", "FIELD_REQUIRED"),
    ("a b", "INVALID_FIELD"),
    ("$", "INVALID_FIELD"),
    ("$$x", "INVALID_FIELD"),
    ("custody:manual", "INVALID_FIELD"),
    ("$" + "x" * 64, "INVALID_FIELD"),
    ("x" * 65, "INVALID_FIELD"),
]
METHODS: dict[str, Any] = {
    "DepositFunds": pb.DepositFundsRequest(account="demo", asset="USD", amount="5", request_id="r"),
    "HoldFunds": pb.HoldFundsRequest(account="demo", asset="USD", amount="5", request_id="r"),
    "TransferFunds": pb.TransferFundsRequest(
        account="demo", to_account="$suspense", asset="USD", amount="5", request_id="r"
    ),
    "SettleHold": pb.SettleHoldRequest(account="demo", hold_id="h", request_id="r"),
    "ReleaseHold": pb.ReleaseHoldRequest(account="demo", hold_id="h", request_id="r"),
}
WITH_AMOUNT = ["DepositFunds", "HoldFunds", "TransferFunds"]


async def ask(exchange: Exchange, method: str, request: Any) -> Any:
    """A call as a service makes it."""
    channel: Any = exchange.ops
    return await getattr(funds_service_pb2_grpc.FundsServiceStub(channel), method)(request, timeout=10)


def changed(method: str, **fields: str) -> Any:
    """A good request with other values."""
    request = type(METHODS[method])()
    request.CopyFrom(METHODS[method])
    for name, value in fields.items():
        setattr(request, name, value)
    return request


async def funds(exchange: Exchange, account: str, min_sequence: int = 0) -> dict[str, tuple[str, str]]:
    """(available, held) by asset."""
    answer = await ask(exchange, "GetFunds", pb.GetFundsRequest(account=account, min_sequence=min_sequence))
    assert all(balance.sequence == answer.sequence for balance in answer.balances), "all of one sequence"
    return {balance.asset: (balance.available, balance.held) for balance in answer.balances}


async def test_a_deposit_is_credited_once_and_answered_the_same(exchange: Exchange) -> None:
    request = pb.DepositFundsRequest(account="new", asset="usd", amount="12.5", request_id="deposit:sim:1")
    first = await ask(exchange, "DepositFunds", request)

    assert await ask(exchange, "DepositFunds", request) == first
    assert (await funds(exchange, "new", first.sequence))["USD"] == (first.balance.available, "0.00000000")
    assert first.balance.available == "12.50000000"
    request.amount = "13"
    assert (await refused(ask(exchange, "DepositFunds", request))).reason == "DUPLICATE_ID"


@pytest.mark.parametrize(("ending", "left"), [("SettleHold", "6.00000000"), ("ReleaseHold", "10.00000000")])
async def test_a_hold_is_settled_or_released_once(exchange: Exchange, ending: str, left: str) -> None:
    await exchange.credit("new", "USD", "10")
    held = await ask(exchange, "HoldFunds", pb.HoldFundsRequest(account="new", asset="USD", amount="4", request_id="h"))
    assert (held.balance.available, held.balance.held) == ("6.00000000", "4.00000000")
    end = changed(ending, account="new", request_id="end")

    moved = await ask(exchange, ending, end)
    assert (moved.balance.asset, moved.balance.available, moved.balance.held) == ("USD", left, "0.00000000")
    assert await ask(exchange, ending, end) == moved
    assert (await refused(ask(exchange, ending, changed(ending, account="new", request_id="x")))).reason == (
        "HOLD_NOT_FOUND"
    )
    assert (
        await refused(ask(exchange, ending, changed(ending, account="new", request_id="end", hold_id="i")))
    ).reason == ("DUPLICATE_ID")


async def test_money_goes_to_accounts_of_the_exchange_and_back(exchange: Exchange) -> None:
    await exchange.credit("new", "USD", "10")
    there = pb.TransferFundsRequest(
        account="new", to_account="$suspense", asset="USD", amount="4", request_id="correction:1"
    )
    first = await ask(exchange, "TransferFunds", there)
    assert await ask(exchange, "TransferFunds", there) == first
    assert first.balance.available == "6.00000000"
    assert await funds(exchange, "$suspense", first.sequence) == {"USD": ("4.00000000", "0.00000000")}
    back = pb.TransferFundsRequest(account="$suspense", to_account="new", asset="USD", amount="5", request_id="b")
    assert (await refused(ask(exchange, "TransferFunds", back))).reason == "INSUFFICIENT_FUNDS"
    back.amount, back.request_id = "4", "c"
    moved = await ask(exchange, "TransferFunds", back)
    assert moved.balance.available == "0.00000000"
    assert await funds(exchange, "new", moved.sequence) == {"USD": ("10.00000000", "0.00000000")}


async def test_a_move_that_is_too_old_to_be_told_from_a_repeat_is_refused(exchange: Exchange) -> None:
    await exchange.credit("new", "USD", "10")
    for method in ("DepositFunds", "TransferFunds"):
        old = changed(method, account="new", asset="USD", amount="4", request_id=f"old-{method}")
        old.request_time.FromSeconds(1)
        refusal = await refused(ask(exchange, method, old))
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "REQUEST_TOO_OLD")
        old.request_time.GetCurrentTime()
        await ask(exchange, method, old)
    assert await funds(exchange, "new") == {"USD": ("10.00000000", "0.00000000")}


async def test_what_is_not_there_cannot_be_held(exchange: Exchange) -> None:
    refusal = await refused(ask(exchange, "HoldFunds", changed("HoldFunds", account="nobody")))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "INSUFFICIENT_FUNDS")
    assert await funds(exchange, "nobody") == {}


async def test_funds_wait_for_their_sequence(exchange: Exchange) -> None:
    refusal = await refused(ask(exchange, "GetFunds", pb.GetFundsRequest(account="demo", min_sequence=10**9)))
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "SEQUENCE_NOT_REACHED")


@pytest.mark.parametrize("method", WITH_AMOUNT)
async def test_bad_amounts_move_nothing(exchange: Exchange, method: str) -> None:
    before = await exchange.state_hash()
    for amount, reason in BAD_AMOUNTS:
        refusal = await refused(ask(exchange, method, changed(method, amount=amount)))
        assert (refusal.reason, refusal.metadata["field"]) == (reason, "amount"), amount
    assert (await refused(ask(exchange, method, changed(method, asset="XYZ")))).reason == "UNKNOWN_ASSET"
    assert (await refused(ask(exchange, method, changed(method, asset="")))).reason == "FIELD_REQUIRED"
    assert await exchange.state_hash() == before


@pytest.mark.parametrize("method", METHODS)
async def test_bad_names_and_ids_move_nothing(exchange: Exchange, method: str) -> None:
    before = await exchange.state_hash()
    ids = ["request_id", *(["hold_id"] if "Hold" in method and method != "HoldFunds" else [])]
    cases = [
        *(("account", name, reason) for name, reason in BAD_NAMES),
        *((field, "", "FIELD_REQUIRED") for field in ids),
        *((field, text, "INVALID_FIELD") for field in ids for text in ("a b", "x" * 65, "é")),
        ("reason", "x" * 257, "INVALID_FIELD"),
    ]
    if method == "TransferFunds":
        cases += [("to_account", name, reason) for name, reason in (*BAD_NAMES, ("demo", "INVALID_FIELD"))]
    for field, value, reason in cases:
        refusal = await refused(ask(exchange, method, changed(method, **{field: value})))
        assert (refusal.code, refusal.reason, refusal.metadata["field"]) == ("INVALID_ARGUMENT", reason, field), value
    assert await exchange.state_hash() == before


async def test_funds_are_for_staff_and_services_alone(exchange: Exchange) -> None:
    channel: Any = exchange.public
    with pytest.raises(Exception, match=r"UNIMPLEMENTED|UNKNOWN_PATH"):
        await funds_service_pb2_grpc.FundsServiceStub(channel).GetFunds(pb.GetFundsRequest(account="demo"), timeout=10)

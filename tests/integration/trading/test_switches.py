"""What halt, cancel-only, maintenance, circuit breaker and ACCEPT_NEW_ORDERS each stop; and how they are turned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pincex.trading.v1 import admin_service_pb2 as pb
from pincex.trading.v1 import market_service_pb2, order_commands_pb2, types_pb2
from tests.integration.trading.engine_app import Exchange, eventually, refused, running_exchange

OK = ""


async def turn(exchange: Exchange, method: str, **fields: Any) -> Any:
    request: Any = pb.SetMarketModeRequest(symbol="BTCUSD", **fields)
    if "Market" not in method:
        request = pb.SetSwitchRequest(**fields)
    return await exchange.operator.ask(getattr(exchange.operator.admin, method), request)


async def reason_of(call: Any) -> str:
    """Why it was refused; OK if it was not."""
    try:
        await call
    except Exception as error:  # noqa: BLE001 - told apart by what it says
        from tests.integration.trading.engine_app import refusal_of

        return refusal_of(error).reason  # type: ignore[arg-type]
    return OK


async def what_goes(exchange: Exchange, victims: list[str]) -> dict[str, str]:
    """For each thing a client does: why it is refused. `victims` are open orders of demo to do it to."""
    demo = exchange.demo
    ask, orders = demo.ask, demo.orders
    replaced, reduced, cancelled, _ = victims
    return {
        "place": await reason_of(demo.buy("0.1", "40000")),
        "replace": await reason_of(
            ask(
                orders.ReplaceOrder,
                order_commands_pb2.ReplaceOrderRequest(order_id=replaced, quantity="0.1", price="40001"),
            )
        ),
        "reduce": await reason_of(
            ask(orders.ReduceOrder, order_commands_pb2.ReduceOrderRequest(order_id=reduced, quantity="0.01"))
        ),
        "cancel": await reason_of(demo.cancel(cancelled)),
        "read": await reason_of(demo.get(replaced)),
        "book": await reason_of(
            ask(demo.markets.GetOrderBook, market_service_pb2.GetOrderBookRequest(symbol="BTCUSD"))
        ),
        "other market": await reason_of(demo.buy("1", "2000", symbol="ETHUSD")),
    }


def stops(**refused_with: str) -> dict[str, str]:
    everything = dict.fromkeys(("place", "replace", "reduce", "cancel", "read", "book", "other market"), OK)
    return {**everything, **{name.replace("_", " "): reason for name, reason in refused_with.items()}}


TABLE: list[tuple[str, str, dict[str, str]]] = [
    (
        "HaltMarket",
        "ResumeMarket",
        stops(place="MARKET_HALTED", replace="MARKET_HALTED", reduce="MARKET_HALTED", cancel="MARKET_HALTED"),
    ),
    ("SetMarketCancelOnly", "ResumeMarket", stops(place="MARKET_CANCEL_ONLY", replace="MARKET_CANCEL_ONLY")),
    (
        "EnableMaintenanceMode",
        "DisableMaintenanceMode",
        stops(place="MAINTENANCE", replace="MAINTENANCE", other_market="MAINTENANCE"),
    ),
    (
        "EnableCircuitBreaker",
        "DisableCircuitBreaker",
        stops(place="CIRCUIT_BREAKER", replace="CIRCUIT_BREAKER", other_market="CIRCUIT_BREAKER"),
    ),
    ("DisableNewOrders", "EnableNewOrders", stops(place="NEW_ORDERS_DISABLED", other_market="NEW_ORDERS_DISABLED")),
]


@pytest.mark.parametrize(("on", "off", "expected"), TABLE, ids=[row[0] for row in TABLE])
async def test_each_switch_stops_what_the_table_says_and_nothing_else(
    exchange: Exchange, on: str, off: str, expected: dict[str, str]
) -> None:
    victims = [(await exchange.demo.buy("0.1", "40000")).order_id for _ in range(4)]
    await turn(exchange, on, reason="test")
    assert await what_goes(exchange, victims) == expected

    # An operator can always take the orders away, and the switch can be turned back.
    mass_cancel = pb.MassCancelRequest(account="demo", reason="test")
    assert (await exchange.operator.ask(exchange.operator.admin.MassCancel, mass_cancel)).cancelled_count >= 2
    await turn(exchange, off, reason="test")
    victims = [(await exchange.demo.buy("0.1", "40000")).order_id for _ in range(4)]
    assert await what_goes(exchange, victims) == stops()


async def test_switches_say_how_they_stand(exchange: Exchange) -> None:
    async def now() -> tuple[bool, bool, bool]:
        switches = await exchange.operator.ask(exchange.operator.admin.GetSwitches, pb.GetSwitchesRequest())
        assert switches.sequence == exchange.engine.state.sequence
        return (switches.accept_new_orders, switches.maintenance_mode, switches.circuit_breaker)

    assert await now() == (True, False, False)
    for method, expected in (
        ("DisableNewOrders", (False, False, False)),
        ("EnableMaintenanceMode", (False, True, False)),
        ("EnableCircuitBreaker", (False, True, True)),
        ("EnableNewOrders", (True, True, True)),
        ("DisableMaintenanceMode", (True, False, True)),
        ("DisableCircuitBreaker", (True, False, False)),
    ):
        answer = await turn(exchange, method)
        assert (answer.accept_new_orders, answer.maintenance_mode, answer.circuit_breaker) == expected
        assert await now() == expected


async def test_a_switch_turned_again_with_the_same_id_is_turned_once(exchange: Exchange) -> None:
    await turn(exchange, "EnableCircuitBreaker", request_id="cb-1")
    await turn(exchange, "DisableCircuitBreaker", request_id="cb-2")
    sequence = exchange.engine.state.sequence
    again = await turn(exchange, "EnableCircuitBreaker", request_id="cb-1")

    assert not again.circuit_breaker
    assert exchange.engine.state.sequence == sequence


async def test_a_market_says_its_mode(exchange: Exchange) -> None:
    assert (await turn(exchange, "HaltMarket")).mode == types_pb2.HALTED
    assert (await turn(exchange, "SetMarketCancelOnly")).mode == types_pb2.CANCEL_ONLY
    assert (await turn(exchange, "ResumeMarket")).mode == types_pb2.OPEN
    unknown = pb.SetMarketModeRequest(symbol="NONE")
    refusal = await refused(exchange.operator.ask(exchange.operator.admin.HaltMarket, unknown))
    assert refusal.reason == "UNKNOWN_SYMBOL"


async def test_cancel_all_leaves_a_halted_market_alone(exchange: Exchange) -> None:
    kept = await exchange.demo.buy("0.1", "40000")
    gone = await exchange.demo.buy("1", "2000", symbol="ETHUSD")
    await turn(exchange, "HaltMarket")
    answer = await exchange.demo.ask(exchange.demo.orders.CancelAllOrders, order_commands_pb2.CancelAllOrdersRequest())

    assert answer.cancelled_count == 1
    assert (await exchange.demo.get(kept.order_id)).status == types_pb2.PENDING
    assert (await exchange.demo.get(gone.order_id)).status == types_pb2.CANCELLED


# --- environment and files ---


async def test_the_environment_turns_switches_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_exchange(monkeypatch, ACCEPT_NEW_ORDERS="false", MAINTENANCE_MODE="true") as exchange:
        await eventually(lambda: exchange.engine.state.maintenance, "maintenance is on")
        await eventually(lambda: not exchange.engine.state.accept_new_orders, "new orders are off")
        await turn(exchange, "DisableMaintenanceMode")
        refusal = await refused(exchange.demo.buy("1", "40000"))

    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "NEW_ORDERS_DISABLED")


async def test_a_file_turns_a_switch_when_it_changes_and_overrides_nobody_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("exchange.trading.switches.POLL_S", 0.005)
    file = tmp_path / "ACCEPT_NEW_ORDERS"
    file.write_text("false\n")
    async with running_exchange(monkeypatch, PINCEX_SWITCHES_DIR=str(tmp_path)) as exchange:
        await eventually(lambda: not exchange.engine.state.accept_new_orders, "the file turns it off")
        await turn(exchange, "EnableNewOrders")
        (tmp_path / "MAINTENANCE_MODE").write_text("true")
        await eventually(lambda: exchange.engine.state.maintenance, "the other file is read")
        assert exchange.engine.state.accept_new_orders, "a file that did not change overrode an operator"

        file.write_text("nonsense")
        (tmp_path / "MAINTENANCE_MODE").write_text("off")
        await eventually(lambda: not exchange.engine.state.maintenance, "the other file is read again")
        assert exchange.engine.state.accept_new_orders

        sequence = exchange.engine.state.sequence
        file.write_text("true")
        (tmp_path / "MAINTENANCE_MODE").write_text("yes")
        await eventually(lambda: exchange.engine.state.maintenance, "maintenance is on")
        assert exchange.engine.state.sequence == sequence + 1, "what stands so already is no command"

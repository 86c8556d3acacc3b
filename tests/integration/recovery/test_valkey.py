"""Valkey carries what may be lost: its death stops no order."""

from __future__ import annotations

from pincex_client import ExchangeClient, RetryPolicy
from tests.integration.journal.waiting import until
from tests.stack_fixture import ExchangeStack

KILLS = 3
NO_RETRIES = RetryPolicy(deadline=5.0, attempt_timeout=5.0, first_delay=1e6, max_delay=1e6)


async def test_orders_are_answered_while_valkey_dies_and_comes_back(exchange_stack: ExchangeStack) -> None:
    (valkey,) = [one["name"] for one in exchange_stack.status()["services"] if "valkey" in one["name"]]
    async with ExchangeClient(exchange_stack.edge_address, account="demo", policy=NO_RETRIES) as exchange:
        for _ in range(KILLS):
            pid = exchange_stack.kill(valkey)
            placed = 0
            while (now := exchange_stack.instance(valkey))["state"] != "ready" or now["pid"] == pid or placed < 20:
                order = await exchange.place_order("BTCUSD", "BUY", "0.001", "30000")
                assert (await exchange.cancel_order(order.order_id)).status == "CANCELLED"
                placed += 1
            await until(lambda: exchange_stack.instance(valkey)["state"] == "ready")

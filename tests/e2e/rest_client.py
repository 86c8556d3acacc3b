"""One account of the running exchange, over REST."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.edge_http import Answer, call

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack

JSON = "application/json"
LIMIT_BUY: dict[str, Any] = {
    "symbol": "BTC/USD",
    "side": "Buy",
    "quantity": "0.01",
    "price": "30000.00",
    "order_type": "Limit",
}


class RestClient:
    """A fresh account with money."""

    def __init__(self, stack: ExchangeStack) -> None:
        self.stack = stack
        self.account = f"rest-{uuid4().hex[:12]}"
        for asset, amount in (("USD", "1000000"), ("BTC", "10"), ("ETH", "100")):
            body = {"asset": asset, "amount": amount, "request_id": f"fund-{asset}"}
            answer = self.operator("POST", f"/admin/accounts/{self.account}/credits", body)
            assert answer.status == 200, answer.text

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """On the public edge; anything but text or bytes is sent as JSON."""
        data = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        headers = {"x-pincex-account": self.account, **({"content-type": JSON} if data is not None else {})}
        return call(f"{self.stack.edge_url}{path}", method, data, headers)

    def operator(self, method: str, path: str, body: object = None) -> Answer:
        """On the ops listener."""
        data = None if body is None else json.dumps(body)
        return call(f"{self.stack.ops_url}{path}", method, data, {"content-type": JSON} if data else {})

    def place(self, **change: Any) -> Answer:
        """A limit buy far below the market, but for what changes."""
        return self.call("POST", "/api/v1/orders", {**LIMIT_BUY, **change})

    def placed(self, **change: Any) -> dict[str, Any]:
        """As `place`; must succeed."""
        answer = self.place(**change)
        assert answer.status == 200, answer.text
        order: dict[str, Any] = answer.json()
        return order

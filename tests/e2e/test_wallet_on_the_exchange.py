"""Money in on a running exchange: from the simulated network to the balance and the ledger, back again, and through kill -9."""

from __future__ import annotations

import json
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.edge_http import Answer, call
from tests.stack_fixture import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack_fixture import ExchangeStack


def ops(exchange: ExchangeStack, path: str, **body: object) -> Any:
    """A call on the ops listener, which must succeed; with a body it is a POST."""
    url = f"{exchange.ops_url}/admin/{path}"
    answer = call(url, "POST", json.dumps(body)) if body else call(url)
    assert answer.status == 200, answer.text
    return answer.json()


def mine(exchange: ExchangeStack, path: str, account: str) -> Answer:
    """What an account reads of its own."""
    return call(f"{exchange.edge_url}/api/v1/{path}", headers={"x-pincex-account": account})


def deposits(exchange: ExchangeStack, account: str) -> dict[str, dict[str, Any]]:
    """By transaction."""
    found = mine(exchange, "wallet/deposits?asset=ETH", account).json()
    return {one["transaction_id"]: one for one in found.get("deposits", [])}


def appear(exchange: ExchangeStack, account: str, amount: str) -> str:
    """A transaction of ETH appears; its id. Asked again until it is answered: it appears once."""
    name = f"e2e-{uuid.uuid4().hex}"
    body = json.dumps({"account": account, "asset": "ETH", "amount": amount, "transaction_id": name})
    url = f"{exchange.ops_url}/admin/wallet/simulator/deposits"
    eventually(lambda: call(url, "POST", body).status == 200, "it appears")
    return name


def stands(exchange: ExchangeStack, account: str, name: str, status: str) -> None:
    """Wait until a deposit has a status."""
    eventually(lambda: deposits(exchange, account).get(name, {}).get("status") == status, f"{name} is {status}")


def balance(exchange: ExchangeStack, account: str) -> Decimal:
    """Of ETH, held included."""
    found = mine(exchange, "balances", account).json().get("balances", [])
    return sum((Decimal(one["available"]) + Decimal(one["held"]) for one in found if one["asset"] == "ETH"), Decimal(0))


def custody(exchange: ExchangeStack) -> tuple[Decimal, Decimal]:
    """What the network says that it has of ETH, and what the ledger says."""
    status = ops(exchange, "wallet/status")
    network = sum((Decimal(one["amount"]) for one in status.get("custody", []) if one["asset"] == "ETH"), Decimal(0))
    ledger = ops(exchange, "ledger/accounts/custody:simulated")
    booked = sum((Decimal(one["amount"]) for one in ledger.get("balances", []) if one["asset"] == "ETH"), Decimal(0))
    return network, booked


def postings(exchange: ExchangeStack, account: str) -> Iterator[tuple[str, str, str]]:
    """(cause, reference, amount) of an account in the ledger, the newest first."""
    for one in ops(exchange, f"ledger/accounts/{account}/postings").get("postings", []):
        yield one["cause"], one["reference"], one["amount"]


def test_a_deposit_comes_from_the_network_to_the_balance_and_the_ledger_and_goes_back(
    exchange_stack: ExchangeStack,
) -> None:
    exchange, account = exchange_stack, "wallet-e2e"
    address = mine(exchange, "wallet/deposit-address?asset=eth", account).json()
    assert address == {"asset": "ETH", "network": "simulated", "address": address["address"]}
    name = appear(exchange, account, "2.5")
    stands(exchange, account, name, "CREDITED")
    credited = deposits(exchange, account)[name]
    assert (credited["amount"], credited["address"]) == ("2.50000000", address["address"])
    assert balance(exchange, account) == Decimal("2.5")
    reference = f"deposit:simulated:{credited['deposit_id']}"
    eventually(lambda: ("deposit", reference, "2.50000000") in postings(exchange, account), "it stands in the ledger")
    eventually(lambda: len(set(custody(exchange))) == 1, "network and ledger agree")
    # Half of it goes away; then the network takes all of it back.
    funds = {"account": account, "asset": "ETH"}
    held = call(
        f"{exchange.edge_url}/api/v1/wallet/transfers",
        "POST",
        json.dumps({"to_account": "wallet-e2e-other", "asset": "ETH", "amount": "1.5", "request_id": "away"}),
        {"x-pincex-account": account},
    )
    assert held.status == 200, (held.text, funds)
    ops(exchange, "wallet/simulator/reorgs", transaction_id=name)
    stands(exchange, account, name, "REVERSED")
    eventually(
        lambda: deposits(exchange, account)[name].get("recovered_amount") == "1.00000000", "what is left is taken back"
    )
    assert balance(exchange, account) == 0
    eventually(lambda: len(set(custody(exchange))) == 1, "the loss is booked")
    refused = call(
        f"{exchange.edge_url}/api/v1/wallet/transfers",
        "POST",
        json.dumps({"to_account": "demo", "asset": "ETH", "amount": "0.1", "request_id": "frozen"}),
        {"x-pincex-account": account},
    )
    assert (refused.status, refused.reason()) == (400, "ACCOUNT_FROZEN")
    assert ops(exchange, f"wallet/accounts/{account}/thaw", reason="looked into")["frozen"] is False
    assert ops(exchange, "settlement/reconcile", reason="wallet test")["whole"] is True


def test_deposits_survive_a_wallet_that_is_killed(exchange_stack: ExchangeStack) -> None:
    exchange, account = exchange_stack, "wallet-killed"
    names = [appear(exchange, account, "0.001") for _ in range(3)]
    exchange.restart("wallet-1")
    names += [appear(exchange, account, "0.001") for _ in range(3)]
    for name in names:
        stands(exchange, account, name, "CREDITED")
    assert balance(exchange, account) == Decimal("0.006")
    eventually(lambda: len(set(custody(exchange))) == 1, "network and ledger agree")

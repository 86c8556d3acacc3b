"""The past over REST and the command line, on the whole running exchange: its journal is a database."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.e2e.rest_client import RestClient

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def rest(exchange_stack: ExchangeStack) -> RestClient:
    """An account, on a stack that other tests use too."""
    return RestClient(exchange_stack)


@pytest.fixture(scope="module")
def symbol(rest: RestClient) -> str:
    """A market of its own."""
    name = f"P{uuid4().hex[:8].upper()}"
    rules = {"symbol": name, "base_asset": "BTC", "quote_asset": "USD", "tick_size": "0.01", "lot_size": "0.00001"}
    made = rest.operator("POST", "/admin/markets", {**rules, "request_id": name})
    assert made.status == 200, made.text
    return name


def lines_of(text: str) -> list[dict[str, Any]]:
    """The messages of a stream: a JSON document a line."""
    return [json.loads(line) for line in text.splitlines() if line]


def pincex(rest: RestClient, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`pincex ARGUMENTS` on this exchange."""
    return subprocess.run(
        [sys.executable, "-c", "import sys; from pincex_client.cli import main; sys.exit(main())", *arguments],
        env=rest.stack.folder.environment,
        cwd=rest.stack.home.parent,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_the_book_of_the_past_is_what_was_shown_then(rest: RestClient, symbol: str) -> None:
    told = {}
    for step in range(3):
        placed = rest.placed(symbol=symbol, price=f"{20_000 + step}.00")
        answer = rest.call("GET", f"/api/v1/orderbook/{symbol}?min_sequence={placed['sequence']}")
        told[placed["sequence"]] = answer.json()
    for sequence, shown in told.items():
        past = rest.call("GET", f"/api/v1/orderbook/{symbol}?as_of_sequence={sequence}")
        assert past.status == 200, past.text
        # Others trade on other markets meanwhile: the present book may have been told at a later sequence.
        assert past.json() == {**shown, "sequence": sequence}
    done = pincex(rest, "book", symbol, "--at-sequence", next(iter(told)), "--json")
    assert (done.returncode, json.loads(done.stdout)["bid_order_count"]) == (0, 1), done.stderr


def test_what_cannot_be_shown_is_refused_with_its_reason(rest: RestClient, symbol: str) -> None:
    before = rest.call("GET", f"/api/v1/orderbook/{symbol}?as_of_sequence=5")
    assert (before.status, before.reason()) == (404, "UNKNOWN_SYMBOL")
    beyond = rest.call("GET", f"/api/v1/orderbook/{symbol}?as_of_sequence=1000000000000")
    assert (beyond.status, beyond.reason()) == (400, "SEQUENCE_IN_FUTURE")
    refused = pincex(rest, "book", symbol, "--at-sequence", "1000000000000", "--json")
    assert (refused.returncode, json.loads(refused.stdout)["error"]["reason"]) == (1, "SEQUENCE_IN_FUTURE")


def test_the_journal_is_verified_as_a_stream_of_lines(rest: RestClient, symbol: str) -> None:
    sequence = int(rest.placed(symbol=symbol)["sequence"])
    answer = rest.operator("GET", f"/admin/journal/verify?to_sequence={sequence}")
    assert answer.status == 200, answer.text
    *before, found = lines_of(answer.text)
    assert before
    assert not any(message["done"] for message in before)
    assert (found["done"], found["valid"], found["difference"]) == (True, True, "")
    assert int(found["command_count"]) == int(found["sequence"]) >= sequence
    assert (len(found["frame_hash"]), len(found["state_hash"])) == (64, 64)

    shown = pincex(rest, "journal", "verify")
    assert (shown.returncode, "valid up to sequence" in shown.stdout) == (0, True), shown.stderr
    assert "verified up to" in shown.stderr


def test_a_stretch_that_is_not_there_is_an_error_and_no_empty_stream(rest: RestClient) -> None:
    answer = rest.operator("GET", "/admin/journal/verify?from_sequence=1000000000000")
    assert (answer.status, answer.reason()) == (400, "SEQUENCE_IN_FUTURE")
    wrong = rest.operator("GET", "/admin/journal/verify?from_sequence=5&to_sequence=4")
    assert (wrong.status, wrong.reason()) == (400, "INVALID_FIELD")
    public = rest.call("GET", "/admin/journal/verify")
    assert (public.status, public.reason()) == (404, "UNKNOWN_PATH")

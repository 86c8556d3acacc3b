"""The runbooks' "WebSocket Operations" as docs/RUNBOOKS.md prints it, with clients that are connected through the edge."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect

from tests.document_shell import DocumentShell
from tests.edge_http import call
from tests.stack_fixture import eventually
from tests.unit.docs.examples import examples
from tests.unit.docs.tables import document

if TYPE_CHECKING:
    from tests.stack_fixture import ExchangeStack

STEPS = {example.name: example for example in examples(document("docs/RUNBOOKS.md"))}


def types(stack: ExchangeStack, step: str) -> list[dict[str, Any]]:
    """Run a step of the document; answers what its commands printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    printed = DocumentShell(stack.folder, stack.home.parent, {"PATH": path}).type(STEPS[step])
    decoder, found = json.JSONDecoder(), []
    while printed := printed.lstrip():
        value, end = decoder.raw_decode(printed)
        found.append(value)
        printed = printed[end:]
    return found


def connections(stack: ExchangeStack) -> int:
    count: int = call(f"{stack.ops_url}/admin/connections/count").json()["connections"]
    return count


def test_connections_are_counted_told_apart_and_cleaned_up(exchange_stack: ExchangeStack) -> None:
    stack = exchange_stack
    eventually(lambda: connections(stack) == 0, "nobody else is connected")
    url = f"ws://{stack.edge_address}/ws"
    with connect(url) as first, connect(url) as second:
        first.send(json.dumps({"op": "subscribe", "channel": "status"}))
        eventually(lambda: connections(stack) == 2, "both are counted")
        eventually(
            lambda: call(f"{stack.ops_url}/admin/connections/count").json()["subscriptions"] == 1, "one has subscribed"
        )
        count, spread = types(stack, "count-connections")
        assert (count["connections"], count["authenticated"], count["subscriptions"]) == (2, 0, 1)
        assert count["instances"] == len(spread["instances"]) >= 1
        assert spread["channels"] == [{"name": "status", "connections": 1}]
        assert spread["addresses"] == [{"name": "127.0.0.1", "connections": 2}]
        # Neither is idle for so long.
        closed, narrower = types(stack, "clean-up-connections")
        assert (closed["closed"], narrower["closed"], closed["instances"]) == (0, 0, count["instances"])
        second.send(json.dumps({"op": "ping", "id": "still-here"}))
        answers = [json.loads(second.recv(timeout=10)) for _ in range(2)]
        assert answers[1]["id"] == "still-here"
    refused = call(f"{stack.ops_url}/admin/connections/cleanup", "POST", json.dumps({"idle_seconds": 1}))
    assert (refused.status, refused.reason()) == (400, "INVALID_FIELD")
    eventually(lambda: connections(stack) == 0, "they are gone")
    records = call(f"{stack.ops_url}/admin/audit/records").json()["records"]
    assert any(one["action"].endswith("ConnectionService/CleanUpConnections") for one in records)

"""What the documents show runs, and what the command line has is documented."""

import re
import textwrap
from pathlib import Path

import pytest
import typer.main

from pincex.trading.v1.admin_replicas_pb2 import VerifyJournalProgress
from pincex_client import ExchangeClient, RetryPolicy
from pincex_client.cli.app import build_app
from pincex_client.session import SessionOptions
from tests.unit.client.fake_exchange import FakeExchange
from tests.unit.client.fake_server import FakeServer
from tests.unit.client.test_feeds import ASKS, BIDS, snapshot

SDK = Path("docs/SDK.md")
CLI = Path("docs/CLI.md")


def examples(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


async def test_every_example_of_the_sdk_document_runs(
    repository: Path, server: FakeServer, exchange: FakeExchange, capsys: pytest.CaptureFixture[str]
) -> None:
    server.markets.scripts = [[snapshot(5, BIDS, ASKS), None], [snapshot(6, BIDS, ASKS), None]]
    found = examples((repository / SDK).read_text(encoding="utf-8"))
    assert len(found) == 7
    exchange.verification = [
        VerifyJournalProgress(sequence=4_711, to_sequence=9_000),
        VerifyJournalProgress(sequence=9_000, to_sequence=9_000, done=True, valid=True, state_hash="beef"),
    ]
    for example in found:
        source = re.sub(r"127\.0\.0\.1:808[01]", server.target, example)
        wrapped = "async def example():\n" + textwrap.indent(source, "    ")
        scope: dict[str, object] = {}
        exec(compile(wrapped, str(SDK), "exec"), scope)
        await scope["example"]()  # type: ignore[operator]
    printed = capsys.readouterr().out
    assert "PENDING 0.5 None" in printed
    assert "PENDING 100" in printed, "the session's hundred orders"
    assert "4711 9000" in printed, "how far the verification is"
    assert "True  beef" in printed, "what it found"
    assert "OrdersSnapshot" in printed
    assert "book False 6 100.00" in printed, "a book that is not old"
    assert "candles 2 False" in printed, "the past, and what is still open"


def test_every_command_is_documented(repository: Path) -> None:
    text = (repository / CLI).read_text(encoding="utf-8")
    root = typer.main.get_command(build_app())
    names = set(root.commands)  # type: ignore[attr-defined]
    admin = set(root.commands["admin"].commands)  # type: ignore[attr-defined]
    assert {"place", "replay", "admin"} <= names
    assert [name for name in sorted(names | admin) if f"`{name}" not in text and f", `{name}" not in text] == []


def test_the_numbers_of_the_documents_are_those_of_the_code(repository: Path) -> None:
    text = (repository / SDK).read_text(encoding="utf-8")
    policy, options = RetryPolicy(), SessionOptions()
    assert f"`RetryPolicy.deadline` ({policy.deadline:g} s)" in text
    assert f"`attempt_timeout` ({policy.attempt_timeout:g} s)" in text
    assert f"`reconnect_deadline` ({options.reconnect_deadline:g} s)" in text
    assert ExchangeClient.__doc__ is not None

"""What README.md prints is what a newcomer gets: its examples run, in order, on a fresh exchange."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.document_shell import DocumentShell
from tests.stack_fixture import DOWN_DEADLINE_S, stack_folder, temporary_home
from tests.unit.docs.examples import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stack_fixture import StackFolder

README = Path(__file__).resolve().parents[2] / "README.md"
EXAMPLES = examples(README.read_text(encoding="utf-8"))
UP = "up"
ORDER_ID = "ORDER_ID"


class Newcomer(DocumentShell):
    """Somebody who types the examples in the repository's folder, with the order ids of this exchange."""

    def __init__(self, repository: Path, folder: StackFolder, started: str) -> None:
        super().__init__(folder, repository, {})
        self.started = started
        self._order_id = ORDER_ID

    def here(self, text: str) -> str:
        """A text of the document with what this exchange has instead."""
        text = re.sub(r"(?<![\w./])\.venv/bin/", f"{Path(sys.executable).parent}/", super().here(text))
        return text.replace(ORDER_ID, self._order_id)

    def learn(self, printed: str) -> None:
        """The id of the order that was placed."""
        for line in printed.splitlines():
            if line.startswith('{"order_id"'):
                self._order_id = json.loads(line)["order_id"]


@pytest.fixture(scope="module")
def newcomer(repository: Path) -> Iterator[Newcomer]:
    with temporary_home() as home:
        folder = stack_folder(home, PINCEX_CONFIG_DIR=str(home.parent / "config"), PINCEX_WITHOUT="")
        up = folder.command("up", "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        try:
            yield Newcomer(repository, folder, up.stdout)
        finally:
            down = folder.command("down", deadline_s=DOWN_DEADLINE_S)
            assert down.returncode == 0, down.stderr


def test_the_seed_request_stands_in_the_document_word_for_word() -> None:
    seed = (
        'curl -X POST http://localhost:8080/api/v1/orders -H "Content-Type: application/json" '
        '-d \'{"symbol":"BTC/USD","side":"Buy","quantity":"1.0","price":"50000.00","order_type":"Limit"}\''
    )
    assert seed in next(example.script for example in EXAMPLES if example.name == "place")


# One test, since each example goes on from what those before it did: some fifty commands, a second each on two busy cores.
@pytest.mark.timeout(400)
def test_every_example_prints_what_the_document_says(newcomer: Newcomer) -> None:
    assert len(EXAMPLES) > 8
    for example in EXAMPLES:
        assert example.output, f"{example.name} promises no output"
        newcomer.type(example)


def test_up_prints_the_addresses_that_the_document_shows(newcomer: Newcomer) -> None:
    text = README.read_text(encoding="utf-8")
    shown = text.partition("`make up` ends with the addresses to try:")[2].partition("```text\n")[2].partition("```")[0]
    assert shown.count("http://") == 6
    for line in shown.splitlines():
        assert newcomer.here(line) in newcomer.started

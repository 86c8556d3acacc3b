"""Tables of a document that a test holds true: `<!-- vectors: NAME -->` or `<!-- table: NAME -->` stands above each."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def document(name: str) -> str:
    """The text of a document by its path in the repository."""
    return (REPOSITORY / name).read_text(encoding="utf-8")


def table(text: str, name: str) -> list[list[str]]:
    """The rows of a marked table, its head first, without the line below it. Fails where there is none."""
    found = re.search(rf"^<!-- (?:vectors|table): {re.escape(name)} -->\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    assert found is not None, f"there is no table {name}"
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in found[1].splitlines()]
    assert len(rows) > 2, f"the table {name} has no rows"
    assert all(set(cell) <= set("-: ") for cell in rows[1]), f"the table {name} has no head"
    assert {len(row) for row in rows} == {len(rows[0])}, f"rows of {name} differ in length"
    return [rows[0], *rows[2:]]

"""The limits that docs/ARCHITECTURE.md names are those of the code."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.unit.docs.tables import document, table

HEAD, *ROWS = table(document("docs/ARCHITECTURE.md"), "bounds")


def value_of(name: str) -> float:
    """A constant, or the default of a class' attribute, by its dotted name below `exchange`."""
    *path, last = name.split(".")
    for length in range(len(path), 0, -1):
        try:
            found: object = importlib.import_module(".".join(["exchange", *path[:length]]))
        except ModuleNotFoundError:
            continue
        owner = found
        for part in path[length:]:
            owner = getattr(owner, part)
        # A dataclass with slots and a compiled class show their defaults in an instance only.
        number = getattr(owner() if isinstance(owner, type) else owner, last)
        assert isinstance(number, int | float)
        return number
    raise AssertionError(f"there is no module of {name}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_bound_is_that_of_the_code(row: list[str]) -> None:
    _, limit, beyond, name = row
    assert beyond
    assert float(limit.replace(",", "")) == value_of(name.strip("`"))


def test_no_bound_stands_twice_and_reasons_are_the_contracts() -> None:
    names = [row[3] for row in ROWS]
    assert len(set(names)) == len(names) > 25
    reasons = set(re.findall(r"^  ([A-Z_]+) = \d+;", document("proto/pincex/common/v1/errors.proto"), re.MULTILINE))
    named = {word for row in ROWS for word in re.findall(r"\b[A-Z]+_[A-Z_]+\b|\bOVERLOADED\b", row[2])}
    assert named - reasons - {"RESOURCE_EXHAUSTED"} == set()

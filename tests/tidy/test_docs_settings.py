"""Every environment variable that the code reads stands once in a table of docs/DEVELOPMENT.md or docs/CLI.md, and no
other does.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from exchange.stack.catalogue import CATALOGUE
from tests.unit.docs.tables import document

ROOT = Path(__file__).resolve().parents[2]
CODE = [
    ROOT / "setup.py",
    *(ROOT / "services/exchange").rglob("*.py"),
    *(ROOT / "clients/python/pincex_client").rglob("*.py"),
]
READERS = frozenset(
    {
        *("optional", "required", "secret", "optional_secret", "choice", "integer", "number", "boolean", "path"),
        *("get", "port", "_integer", "_optional_flag", "_optional_path"),
    }
)
# Of other programs: ours sets them for its children and reads none.
FOREIGN = frozenset({"PATH", "HOME", "MYPYPATH", "GRPC_VERBOSITY"})

_OURS = re.compile(r"PINCEX_[A-Z_]+")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{3,}")


def variables(source: str) -> set[str]:
    """Names that a module reads from an environment, or spells out as ours."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _OURS.fullmatch(node.value):
            found.add(node.value)
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in READERS:
                # Helpers take the environment before the name.
                named = node.args[1:2] if name.startswith("_") else node.args[:1]
                texts = [argument.value for argument in named if isinstance(argument, ast.Constant)]
                found |= {text for text in texts if isinstance(text, str) and _VARIABLE.fullmatch(text)}
    return found


def documented() -> Counter[str]:
    """Variables in the first column of a table; those of the command line stand behind their options."""
    cell = r" *`([A-Z][A-Z0-9_]+)(?:=[^`]*)?` *\|"
    settings = re.findall(rf"^\|{cell}", document("docs/DEVELOPMENT.md"), re.MULTILINE)
    return Counter(settings + re.findall(rf"^\| *`--[a-z-]+` *\|{cell}", document("docs/CLI.md"), re.MULTILINE))


def test_every_variable_is_documented_once_and_none_is_invented() -> None:
    read = set().union(*(variables(file.read_text(encoding="utf-8")) for file in CODE))
    read -= FOREIGN
    read |= {entry.module_variable for entry in CATALOGUE}
    names = documented()
    assert {"PINCEX_HOME", "DATABASE_URL", "PINCEX_PURE", "ACCEPT_NEW_ORDERS"} <= read
    assert (read - names.keys(), names.keys() - read) == (set(), set())
    assert [name for name, count in names.items() if count > 1] == []


def test_variables_are_found_however_they_are_read() -> None:
    source = (
        'a = environment.integer("SOME_PORT", 1)\nb = values.get("SOME_URL")\nc = f(x="PINCEX_X")\nd = "OTHER_TEXT"'
    )
    assert variables(source) == {"SOME_PORT", "SOME_URL", "PINCEX_X"}

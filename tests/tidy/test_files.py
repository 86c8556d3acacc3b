"""The files of the repository are of a readable size, and name no machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70
GENERATED = ("clients/python/pincex/", "clients/web/src/gen/", "docs/openapi.json", "requirements/")
HAND_WRITTEN = (".py", ".ts", ".tsx", ".proto")

# Spelled in two halves, so that this file does not contain them.
REGISTRY_HOSTS = re.compile(
    "|".join(
        re.escape(left + right)
        for left, right in (
            ("pypi", ".org"),
            ("pythonhosted", ".org"),
            ("npmjs", ".org"),
            ("npmjs", ".com"),
            ("registry.yarnpkg", ".com"),
            ("crates", ".io"),
            ("repo.maven.apache", ".org"),
            ("repo1.maven", ".org"),
            ("proxy.golang", ".org"),
            ("deb.debian", ".org"),
            ("buf", ".build/gen"),
        )
    ),
    re.IGNORECASE,
)
MACHINE_PATHS = re.compile("|".join(("/work" + "/main", "/work" + "/shared", "/root" + "/", "/home" + "/[a-z]")))


@pytest.fixture(scope="module")
def tracked(repository: Path) -> list[str]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True)
    names = [name for name in listing.stdout.split("\0") if name and (repository / name).is_file()]
    assert names, "git lists no file"
    return names


def hand_written(names: list[str], *suffixes: str) -> list[str]:
    return [name for name in names if name.endswith(suffixes) and not name.startswith(GENERATED)]


def test_no_hand_written_file_is_longer_than_600_lines(repository: Path, tracked: list[str]) -> None:
    sizes = {
        name: (repository / name).read_text(encoding="utf-8").count("\n")
        for name in hand_written(tracked, *HAND_WRITTEN)
    }
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_70_lines(repository: Path, tracked: list[str]) -> None:
    assert [
        f"{name}:{where}"
        for name in hand_written(tracked, ".py")
        for where in long_functions((repository / name).read_text(encoding="utf-8"))
    ] == []


def test_a_function_of_71_lines_is_found() -> None:
    source = "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES
    assert long_functions(source) == ["1 f has 71 lines"]
    assert long_functions(source.replace("    x = 1\n", "", 1)) == []


def long_functions(source: str) -> list[str]:
    """Docstrings do not count: what they say is not complexity."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = 0
            if isinstance(first, ast.Expr) and ast.get_docstring(node, clean=False) is not None:
                docstring = (first.end_lineno or first.lineno) - first.lineno + 1
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring
            if lines > MAX_FUNCTION_LINES:
                found.append(f"{node.lineno} {node.name} has {lines} lines")
    return found


@pytest.mark.parametrize(
    ("what", "pattern"), [("package registry", REGISTRY_HOSTS), ("path of one machine", MACHINE_PATHS)]
)
def test_no_tracked_file_names_a_registry_or_a_machine(
    what: str, pattern: re.Pattern[str], repository: Path, tracked: list[str]
) -> None:
    found = []
    for name in tracked:
        text = (repository / name).read_bytes().decode("utf-8", errors="replace")
        found += [f"{name}: {what}: {hit.group()}" for hit in pattern.finditer(text)]
    assert found == []


def test_the_patterns_find_what_they_are_for() -> None:
    assert REGISTRY_HOSTS.search("files." + "pythonhosted" + ".org/packages")
    assert MACHINE_PATHS.search("cd /root" + "/project")
    assert not MACHINE_PATHS.search("/workspace/x and /chroot/y")

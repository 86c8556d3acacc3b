"""The commands that the documents print exist, and the layers hold."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENTS = ("README.md", "docs/DEVELOPMENT.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_of_a_document_exists(document: str, repository: Path) -> None:
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    named = make_targets((repository / document).read_text(encoding="utf-8"))
    assert named, f"{document} names no make target"
    assert named - targets == set()


def make_targets(text: str) -> set[str]:
    """Targets in code: `make x` in backticks, or a line of a code block."""
    return set(re.findall(r"(?:`|^ {4,}|^\$ |^)make ([a-z][a-z-]*)", text, re.MULTILINE))


def test_targets_are_found_in_blocks_and_backticks() -> None:
    assert make_targets("use `make test ARGS=x`\n\n    make up   # all\n\nto make sure") == {"test", "up"}


def test_the_layers_hold(repository: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

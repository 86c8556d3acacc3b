"""Links between documents lead somewhere, and files, tests and make targets that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [document.relative_to(ROOT).as_posix() for document in DOCUMENTS]
SOURCES = ("services", "clients/python/pincex_client", "proto", "tests", "scripts")

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# A path that starts with a folder of the repository; what a pattern or a placeholder names is no path.
_REPOSITORY_PATH = re.compile(r"^(?:services|clients|proto|tests|docs|scripts|requirements|\.ci)/[\w./-]*$")
_SHORT_PATH = re.compile(r"^(?:trading|runtime|stack|domain)/[\w./-]*$")
_TEST = re.compile(r"^test_[a-z0-9_]+$")
_MAKE = re.compile(r"(?:`|^ {4,}|^\$ |^)make ([a-z][a-z-]*)", re.MULTILINE)


def prose(text: str) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    """Links of a document that lead nowhere in the repository."""
    broken = []
    for link in _LINK.findall(prose(document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


def coded(document: Path) -> set[str]:
    """Everything in backticks outside fenced blocks."""
    return set(_CODE.findall(prose(document.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def sources() -> str:
    files = [file for folder in SOURCES for ending in ("py", "proto") for file in (ROOT / folder).rglob(f"*.{ending}")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_resolves(name: str) -> None:
    assert broken_links(ROOT / name) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_a_document_names_exists(name: str) -> None:
    paths = {text for text in coded(ROOT / name) if _REPOSITORY_PATH.match(text)}
    assert {path for path in paths if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_test_that_a_document_names_exists(name: str, sources: str) -> None:
    wanted = {text for text in coded(ROOT / name) if _TEST.match(text)}
    assert {test for test in wanted if f"def {test}(" not in sources} == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_make_target_that_a_document_names_exists(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    assert set(_MAKE.findall((ROOT / name).read_text(encoding="utf-8"))) - targets == set()


def test_the_short_paths_of_the_architecture_exist() -> None:
    paths = {text for text in coded(ROOT / "docs/ARCHITECTURE.md") if _SHORT_PATH.match(text)}
    assert len(paths) > 30
    assert {path for path in paths if not (ROOT / "services/exchange" / path).exists()} == set()


def test_the_functions_and_fields_of_the_architecture_exist(sources: str) -> None:
    words = {text for text in coded(ROOT / "docs/ARCHITECTURE.md") if re.fullmatch(r"\w+(\.\w+)?", text)}
    assert len(words) > 20
    known = set(re.findall(r"\w+", sources))
    assert {word for word in words if not known.issuperset(word.split("."))} == set()


def test_what_leads_nowhere_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# One heading\n[a](b.md) [b](#one-heading) [c](#other) [d](https://x)\n```\n[e](f.md)\n```\n")
    assert broken_links(document) == ["b.md", "#other"]


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    named = {link.partition("#")[0] for link in _LINK.findall(index)}
    assert {file.name for file in (ROOT / "docs").glob("*.md")} - {"README.md"} - named == set()

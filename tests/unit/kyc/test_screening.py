"""Names on the local list are found however they are written, and what cannot be read is said."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from exchange.kyc import screening
from exchange.kyc.person import Person
from exchange.kyc.screening import NO_LIST, LocalList, ScreeningAway, words

if TYPE_CHECKING:
    from pathlib import Path

LIST = """# people
Jean-Luc O'Neill
Łukasz Żółć; 1970-01-31   # with a birth date
Prince
李小龍
"""


def somebody(name: str, born: str = "1990-01-31") -> Person:
    return Person(name, born, "DE", "Street 1", "Town")


@pytest.fixture
def local(tmp_path: Path) -> LocalList:
    path = tmp_path / "list.txt"
    path.write_text(LIST, encoding="utf-8")
    return LocalList(path)


@pytest.mark.parametrize(
    ("name", "born", "line"),
    [
        ("Jean-Luc O'Neill", "1990-01-31", 2),
        ("O\N{RIGHT SINGLE QUOTATION MARK}NEILL, jean luc", "1990-01-31", 2),
        ("Jean Luc Marie O'Neill", "1990-01-31", 2),
        ("Jean O'Neill", "1990-01-31", None),
        ("lukasz zolc", "1970-01-31", 3),
        ("Łukasz Żółć", "1970-02-01", None),
        ("Prince", "1990-01-31", 4),
        ("Prince Albert", "1990-01-31", None),
        ("李小龍", "1990-01-31", 5),
        ("Ann Other", "1990-01-31", None),
    ],
)
async def test_a_name_is_found_whatever_its_order_case_and_accents(
    local: LocalList, name: str, born: str, line: int | None
) -> None:
    hits = await local.screen(somebody(name, born))
    assert hits == (() if line is None else (f"name: line {line} of the local list",))


def test_words_have_no_accents() -> None:
    assert words("Đorđe Åse-Æsa ẞtraße İ") == {"dorde", "ase", "aesa", "sstrasse", "i"}


async def test_the_list_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("Ann Other\n", encoding="utf-8")
    local = LocalList(path)
    assert await local.screen(somebody("Ann Other"))
    path.write_text("Nobody Else\n", encoding="utf-8")
    os.utime(path, ns=(1, 1))
    assert await local.screen(somebody("Ann Other")) == ()


async def test_without_a_list_each_screening_says_so() -> None:
    assert await LocalList(None).screen(somebody("Ann Other")) == (NO_LIST,)


async def test_a_list_that_cannot_be_read_is_no_clean_bill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ScreeningAway, match="FileNotFoundError"):
        await LocalList(tmp_path / "none.txt").screen(somebody("Ann Other"))
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ScreeningAway, match="UnicodeDecodeError"):
        await LocalList(path).screen(somebody("Ann Other"))
    path.write_text("Ann Other\n", encoding="utf-8")
    monkeypatch.setattr(screening, "MAX_LIST_BYTES", 3)
    with pytest.raises(ScreeningAway, match="larger"):
        await LocalList(path).screen(somebody("Ann Other"))


async def test_many_hits_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("Ann Other\n" * 100, encoding="utf-8")
    assert len(await LocalList(path).screen(somebody("Ann Other"))) == screening.MAX_HITS

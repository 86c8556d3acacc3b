"""Screening: whether somebody stands on a list of people that an exchange must not serve.

The provider is an interface, for there are companies that do this. The default is a file of one's own.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from exchange.kyc.person import Person

MAX_LIST_BYTES: Final = 64 * 1024 * 1024
MAX_HITS: Final = 20
NO_LIST: Final = "no list: PINCEX_SCREENING_LIST is not set"

_NOT_A_WORD: Final = re.compile(r"[^\w]+")
# Letters that Unicode does not take apart into a Latin letter and a mark.
_FOLDED: Final = str.maketrans(
    {
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "æ": "ae",
        "œ": "oe",
        "ħ": "h",
        "\N{LATIN SMALL LETTER DOTLESS I}": "i",
    }
)


class ScreeningAway(Exception):
    """Nobody could be asked now; the text says why, without personal data. The case waits and is screened again."""


class ScreeningProvider(Protocol):
    """Who is asked about people."""

    async def screen(self, person: Person) -> tuple[str, ...]:
        """What was found, in words that repeat nothing of the person: they stay when the person's data is erased.

        Empty: nothing. Raises ScreeningAway.
        """
        ...


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list: the words of a name, and a birth date where it is known."""

    line: int
    words: frozenset[str]
    birth_date: str


class LocalList:
    """A text file: a name a line, perhaps `;` and a birth date (1970-01-31); `#` begins a comment. Read again when it changes.

    A name is on the list where all words of a line are in it, whatever their order, case and accents; one word alone must be
    the whole name. A line with another birth date does not count. Without a file each screening says so.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read: tuple[int, int] | None = None
        self._listed: tuple[Listed, ...] = ()

    async def screen(self, person: Person) -> tuple[str, ...]:
        """See `ScreeningProvider`."""
        if self._path is None:
            return (NO_LIST,)
        name = words(person.full_name)
        hits = [
            f"name: line {one.line} of the local list"
            for one in self._lines(self._path)
            if _same_name(one.words, name) and one.birth_date in {"", person.birth_date}
        ]
        return tuple(hits[:MAX_HITS])

    def _lines(self, path: Path) -> tuple[Listed, ...]:
        try:
            state = path.stat()
            mark = (state.st_mtime_ns, state.st_size)
            if mark != self._read:
                if state.st_size > MAX_LIST_BYTES:
                    raise ScreeningAway(f"the list is larger than {MAX_LIST_BYTES} bytes")
                self._listed = parse(path.read_text(encoding="utf-8"))
                self._read = mark
        except (OSError, UnicodeDecodeError) as error:
            raise ScreeningAway(f"the list {path} cannot be read: {type(error).__name__}") from None
        return self._listed


def parse(text: str) -> tuple[Listed, ...]:
    """The lines of a list that name somebody."""
    found = []
    for number, raw in enumerate(text.splitlines(), start=1):
        name, _, birth_date = raw.partition("#")[0].partition(";")
        if parts := words(name):
            found.append(Listed(number, parts, birth_date.strip()))
    return tuple(found)


def words(name: str) -> frozenset[str]:
    """The words of a name without case, accents and punctuation: "Jean-Luc O'Neill" is {jean, luc, oneill}."""
    apart = unicodedata.normalize(
        "NFKD", name.replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "").casefold()
    )
    bare = "".join(character for character in apart if not unicodedata.combining(character))
    return frozenset(_NOT_A_WORD.sub(" ", bare.translate(_FOLDED)).split())


def _same_name(listed: frozenset[str], name: frozenset[str]) -> bool:
    return listed == name if len(listed) == 1 else listed <= name

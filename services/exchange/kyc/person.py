"""Who somebody says to be: what is asked for at each tier, in which form, and as bytes to be encrypted.

No error and no repr of this module repeats a value: it would end up in logs.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from typing import TYPE_CHECKING, Final, NoReturn

import orjson

from exchange.kyc.countries import COUNTRIES
from exchange.runtime.errors import ErrorReason, ServiceError, reject

if TYPE_CHECKING:
    from collections.abc import Mapping

ADULT_YEARS: Final = 18
OLDEST_YEARS: Final = 130
MAX_NAME: Final = 128
MAX_ADDRESS: Final = 200
MAX_CITY: Final = 100
MAX_POSTAL_CODE: Final = 16
DOCUMENT_TIER: Final = 2
"""From this tier on the number of a document is asked for; below it is refused: what is not needed is not kept."""

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DOCUMENT: Final = re.compile(r"[A-Z0-9][A-Z0-9 /.-]{2,30}[A-Z0-9]")
_POSTAL_CODE: Final = re.compile(r"[A-Z0-9][A-Z0-9 -]*", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class Person:
    """What a user gave, checked. `birth_date` is ISO 8601, `country` ISO 3166 alpha-2."""

    full_name: str
    birth_date: str
    country: str
    street_address: str
    city: str
    postal_code: str = field(default="")
    document_number: str = field(default="")

    def __repr__(self) -> str:
        return "Person(***)"

    def to_bytes(self) -> bytes:
        """For encryption."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Person:
        """What `to_bytes` gave."""
        return cls(**orjson.loads(data))

    def values(self) -> tuple[str, ...]:
        """All of it, in a fixed order."""
        return tuple(getattr(self, one.name) for one in fields(self))


def checked(given: Mapping[str, str], tier: int, today: date) -> Person:
    """The person of a submission: blanks at the ends are dropped, texts brought to Unicode's form NFC.

    `given` has the fields of `Person`. Raises ServiceError FIELD_REQUIRED, INVALID_FIELD and FIELD_NOT_ALLOWED; the metadata's
    `field` is the path in the request, such as `data.birth_date`.
    """
    texts = {name: unicodedata.normalize("NFC", text).strip() for name, text in given.items()}
    for name in ("full_name", "birth_date", "country", "street_address", "city"):
        if not texts[name]:
            reject(ErrorReason.FIELD_REQUIRED, field=f"data.{name}")
    _check_document(texts, tier)
    _text(texts, "full_name", MAX_NAME)
    if sum(character.isalpha() for character in texts["full_name"]) < 2:
        _wrong("full_name", "must be a name")
    _text(texts, "street_address", MAX_ADDRESS)
    _text(texts, "city", MAX_CITY)
    texts["country"] = texts["country"].upper()
    if texts["country"] not in COUNTRIES:
        _wrong("country", "must be two letters of ISO 3166, such as DE")
    texts["postal_code"] = texts["postal_code"].upper()
    if texts["postal_code"] and not _POSTAL_CODE.fullmatch(texts["postal_code"][: MAX_POSTAL_CODE + 1]):
        _wrong("postal_code", "must be letters, digits, blanks and hyphens")
    _text(texts, "postal_code", MAX_POSTAL_CODE)
    _check_birth_date(texts["birth_date"], today)
    return Person(**texts)


def age(born: date, today: date) -> int:
    """Whole years: one is a year older on the birthday; who was born on 29 February, on 1 March of other years."""
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))


def _check_birth_date(text: str, today: date) -> None:
    born = None
    if _DATE.fullmatch(text):
        try:
            born = date.fromisoformat(text)
        except ValueError:
            born = None
    if born is None or not 0 <= (years := age(born, today)) <= OLDEST_YEARS:
        _wrong("birth_date", "must be a date such as 1990-01-31")
    if years < ADULT_YEARS:
        _wrong("birth_date", f"is of a minor: one must be {ADULT_YEARS} years old")


def _check_document(texts: dict[str, str], tier: int) -> None:
    number = texts["document_number"] = texts["document_number"].upper()
    if tier < DOCUMENT_TIER:
        if number:
            reject(ErrorReason.FIELD_NOT_ALLOWED, field="data.document_number")
    elif not number:
        reject(ErrorReason.FIELD_REQUIRED, field="data.document_number")
    elif _DOCUMENT.fullmatch(number) is None:
        _wrong("document_number", "must be 4 to 32 letters and digits")


def _text(texts: dict[str, str], name: str, longest: int) -> None:
    text = texts[name]
    if len(text) > longest:
        _wrong(name, f"must have at most {longest} characters")
    # Control characters, line ends, directions of writing, private and unassigned characters.
    if any(
        unicodedata.category(character)[0] == "C" or unicodedata.category(character) in {"Zl", "Zp"}
        for character in text
    ):
        _wrong(name, "has characters that cannot be printed")


def _wrong(name: str, what: str) -> NoReturn:
    raise ServiceError(ErrorReason.INVALID_FIELD, f"data.{name} {what}", metadata={"field": f"data.{name}"})

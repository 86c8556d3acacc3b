"""What is taken of a person, and in which form."""

from __future__ import annotations

from datetime import date

import pytest

from exchange.kyc.countries import COUNTRIES
from exchange.kyc.person import Person, age, checked
from exchange.runtime.errors import ServiceError

TODAY = date(2026, 3, 1)
GIVEN = {
    "full_name": "Ann Other",
    "birth_date": "1990-01-31",
    "country": "DE",
    "street_address": "Street 1",
    "city": "Town",
    "postal_code": "",
    "document_number": "",
}


def test_texts_are_brought_into_one_form() -> None:
    decomposed = "  Ame\N{COMBINING ACUTE ACCENT}lie O'Hara "
    given = GIVEN | {
        "full_name": decomposed,
        "country": "de",
        "postal_code": "sw1a 1aa",
        "document_number": " ab-1234 ",
    }
    person = checked(given, 2, TODAY)
    assert (person.full_name, person.country) == ("Am\N{LATIN SMALL LETTER E WITH ACUTE}lie O'Hara", "DE")
    assert (person.postal_code, person.document_number) == ("SW1A 1AA", "AB-1234")
    assert Person.from_bytes(person.to_bytes()) == person
    assert "Hara" not in repr(person)
    assert f"{person}" == "Person(***)"


@pytest.mark.parametrize("name", ["Ann Other", "李小龍", "Ольга Петрова", "محمد علي", "Nguyễn Văn A", "O"])
def test_names_of_any_script_are_taken_but_initials_are_not(name: str) -> None:
    if len(name) == 1:
        with pytest.raises(ServiceError):
            checked(GIVEN | {"full_name": name}, 1, TODAY)
    else:
        assert checked(GIVEN | {"full_name": name}, 1, TODAY).full_name == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("full_name", "x" * 129),
        ("full_name", "Ann\nOther"),
        ("full_name", "Ann \N{RIGHT-TO-LEFT OVERRIDE}Other"),
        ("full_name", "Ann\N{LINE SEPARATOR}Other"),
        ("full_name", "12 34"),
        ("street_address", "x" * 201),
        ("city", "x" * 101),
        ("city", "To\x07wn"),
        ("country", "Q"),
        ("country", "DEU"),
        ("country", "EU"),
        ("postal_code", "x" * 17),
        ("postal_code", "<script>"),
        ("document_number", "A1"),
        ("document_number", "A" * 33),
        ("document_number", "A1'; DROP"),
        ("birth_date", "1990-02-30"),
        ("birth_date", "31.01.1990"),
        ("birth_date", "19900131"),
        ("birth_date", "1890-01-01"),
        ("birth_date", "2026-03-02"),
        ("birth_date", "2008-03-02"),
        ("birth_date", "\N{ARABIC-INDIC DIGIT ONE}990-01-31"),
    ],
)
def test_another_form_is_refused_by_name_and_not_repeated(field: str, value: str) -> None:
    with pytest.raises(ServiceError) as caught:
        checked(GIVEN | {"document_number": "AB1234"} | {field: value}, 2, TODAY)
    error = caught.value
    assert (error.reason_name, error.metadata) == ("INVALID_FIELD", {"field": f"data.{field}"})
    assert value not in error.message


@pytest.mark.parametrize(
    ("born", "today", "years"),
    [
        (date(2008, 3, 1), TODAY, 18),
        (date(2008, 3, 2), TODAY, 17),
        (date(2008, 2, 29), date(2026, 2, 28), 17),
        (date(2008, 2, 29), date(2026, 3, 1), 18),
    ],
)
def test_one_is_older_on_the_birthday(born: date, today: date, years: int) -> None:
    assert age(born, today) == years


def test_eighteen_years_suffice() -> None:
    assert checked(GIVEN | {"birth_date": "2008-03-01"}, 1, TODAY).birth_date == "2008-03-01"


def test_the_codes_of_countries_are_those_that_are_assigned() -> None:
    assert len(COUNTRIES) == 249
    assert {"DE", "US", "BF", "TW", "XK"} & COUNTRIES == {"DE", "US", "BF", "TW"}
    assert all(len(code) == 2 and code.isupper() for code in COUNTRIES)

"""Which passwords are taken."""

from __future__ import annotations

import pytest

from exchange.auth.password_policy import check
from exchange.runtime.errors import ErrorReason, ServiceError

ADDRESS = "alice.jones@example.com"


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("x7!kQ2-mZ9w", "12 to 128"),
        ("x7!kQ2-mZ9wp" * 11, "12 to 128"),
        ("aaaaaaaaaaaa", "different characters"),
        ("abababababab", "different characters"),
        ("password1234", "first that are tried"),
        ("PASSWORD!!!!", "first that are tried"),
        ("P@ssw0rd!2026!", "first that are tried"),
        ("bitcoin bitcoin 2024", "first that are tried"),
        ("dragondragondragon", "first that are tried"),
        ("1029384756!!", "first that are tried"),
        ("abcdefghijklmnop", "row"),
        ("zyxwvutsrqponmlk", "row"),
        ("1q2w3e4r5t6y", "row"),
        ("asdfghjklasdfghjkl", "row"),
        ("my alice.jones pw", "the address"),
        ("ALICE.JONES@EXAMPLE.COM", "the address"),
    ],
)
def test_a_password_that_is_easy_to_guess_is_refused(password: str, why: str) -> None:
    with pytest.raises(ServiceError, match=why) as caught:
        check(password, ADDRESS, "new_password")
    assert caught.value.reason == ErrorReason.PASSWORD_TOO_WEAK
    assert caught.value.metadata == {"field": "new_password"}
    assert password not in caught.value.message


@pytest.mark.parametrize(
    "password",
    [
        "x7!kQ2-mZ9wp",
        "correct horse battery staple",
        "Trader-4711-blau",
        "x7!kQ2-mZ9wp" * 10 + "12345678",
        "пароль-очень-длинный",
        "qwer7!zx-Kp0",
    ],
)
def test_a_long_password_that_is_no_common_one_is_taken(password: str) -> None:
    check(password, ADDRESS, "password")


def test_a_short_name_may_stand_in_a_password() -> None:
    check("tea for the crocodile", "tea@example.com", "password")

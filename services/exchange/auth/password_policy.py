"""Which passwords are taken: long ones that are not among the first that a guesser tries.

No rule about digits and signs: they make passwords harder to remember, not to guess (NIST SP 800-63B, 5.1.1.2).
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

from exchange.runtime.errors import ErrorReason, ServiceError

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 128
_MIN_DISTINCT: Final = 5
# A run such as "abcdef" counts as one character from this length on.
_RUN: Final = 4
_MIN_LOCAL_PART: Final = 4

# What the common lists are made of. With digits and signs around it, repeated, or in "leet", it is as easy to guess.
_WORDS: Final = """
password passwort passphrase passw0rd letmein welcome admin administrator root user login master secret default
changeme test testing guest iloveyou monkey dragon sunshine princess football baseball superman batman starwars
shadow michael jennifer jordan hunter trustno charlie donald freedom whatever computer internet google facebook
samsung apple microsoft windows bitcoin ethereum crypto satoshi exchange trading trader market money blockchain
pincex qwerty qwertyuiop qwertz azerty asdfgh asdfghjkl zxcvbn zxcvbnm qazwsx qazwsxedc abc abcd letmeinnow
correcthorsebatterystaple passwordpassword mypassword thisisapassword iloveyouforever summer winter spring autumn
monday friday london berlin january december hello helloworld cheese cookie flower purple killer pepper ginger
"""
_COMMON: Final = frozenset(_WORDS.split())
_ROWS: Final = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "qwertzuiop",
    "asdfghjkl",
    "zxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik",
    "1q2w3e4r5t6y7u8i9o0p",
    "1q2w3e4r5t6z7u8i9o0p",
)
_LEET: Final = str.maketrans("@4301!5$7", "aaeoiisst")
_EDGES: Final = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_REPEATED: Final = re.compile(r"(.{1,8}?)\1+")


def check(password: str, email: str, field: str) -> None:
    """Raise ServiceError PASSWORD_TOO_WEAK, naming `field` and the rule, never the password; `email` is a normal address."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        _refuse(field, f"the password must have {MIN_LENGTH} to {MAX_LENGTH} characters")
    lower = password.lower()
    local_part = email.partition("@")[0]
    if email in lower or (len(local_part) >= _MIN_LOCAL_PART and local_part in lower):
        _refuse(field, "the password must not contain the address")
    if len(set(lower)) < _MIN_DISTINCT:
        _refuse(field, f"the password must have at least {_MIN_DISTINCT} different characters")
    if _is_common(lower) or _is_common(_EDGES.sub("", lower).translate(_LEET)):
        _refuse(field, "the password is among the first that are tried")
    if _collapsed_length(lower) < _MIN_DISTINCT:
        _refuse(field, "the password is a row of the keyboard or of the alphabet")


def _is_common(text: str) -> bool:
    """Whether it is a common word, perhaps repeated, with digits and signs around it."""
    core = _EDGES.sub("", text)
    if core in _COMMON:
        return True
    repeated = _REPEATED.fullmatch(core)
    words = re.split(r"[\W\d_]+", text)
    return (repeated is not None and repeated.group(1) in _COMMON) or all(not word or word in _COMMON for word in words)


def _collapsed_length(text: str) -> int:
    """The length once each run along a row, forwards or backwards, counts as one character, and so does a repetition."""
    length, position = 0, 0
    while position < len(text):
        position += max(1, _run_length(text, position))
        length += 1
    return length


def _run_length(text: str, start: int) -> int:
    """How many characters from `start` on follow a row or repeat the first; 1 where it is less than a run."""
    best = 1
    for row in (*_ROWS, *(row[::-1] for row in _ROWS), text[start] * MAX_LENGTH):
        end = start + _RUN
        while end <= len(text) and text[start:end] in row:
            best = end - start
            end += 1
    return best


def _refuse(field: str, why: str) -> NoReturn:
    raise ServiceError(ErrorReason.PASSWORD_TOO_WEAK, why, metadata={"field": field})

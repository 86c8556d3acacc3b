"""What is asked of the past is answered in these forms, by this process or, as lines of JSON, by a child."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

import msgspec

from exchange.runtime.feeds.views import BookView
from exchange.trading.journal.contract import BelowFloor, JournalError, JournalUnavailable


class Why(StrEnum):
    """Why there is no answer."""

    IN_FUTURE = "in_future"
    """The sequence lies beyond the head; `number` is the head."""
    NOT_RETAINED = "not_retained"
    """The sequence lies below what can be rebuilt; `number` is the oldest that can."""
    UNKNOWN_SYMBOL = "unknown_symbol"
    """The market did not exist yet."""
    UNAVAILABLE = "unavailable"
    """The journal's database does not answer."""
    DAMAGED = "damaged"
    """The journal is not as it was written; `text` names the place."""
    BUSY = "busy"
    """As much as may be done at a time is being done; `text` names the limit."""


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """There is no answer, and why."""

    why: Why
    number: int = 0
    text: str = ""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """How far a verification is. With `done`: whether all was as it was written, else in `difference` the place and what
    differs there. `frame_hash` and `state_hash`, hexadecimal, are those after the last frame, where all was well.
    """

    sequence: int
    to_sequence: int
    frame_count: int
    command_count: int
    snapshot_count: int
    done: bool = False
    valid: bool = False
    difference: str = ""
    frame_hash: str = ""
    state_hash: str = ""


Answer = BookView | Progress | Refusal

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Answer]] = msgspec.json.Decoder(Answer)


class PastRefused(Exception):
    """There is no answer; `refusal` says why."""

    def __init__(self, why: Why, number: int = 0, text: str = "") -> None:
        super().__init__(f"{why} {number} {text}".rstrip())
        self.refusal = Refusal(why, number, text)


def to_line(answer: Answer) -> bytes:
    """One line of JSON."""
    return _ENCODER.encode(answer) + b"\n"


def from_line(line: bytes) -> BookView | Progress:
    """The answer of a line. Raises PastRefused for a refusal, msgspec.DecodeError for anything but an answer."""
    answer = _DECODER.decode(line)
    if isinstance(answer, Refusal):
        raise PastRefused(answer.why, answer.number, answer.text)
    return answer


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what a journal raises into PastRefused, so that a child and this process refuse alike."""
    try:
        yield
    except JournalUnavailable as error:
        raise PastRefused(Why.UNAVAILABLE, text=str(error)) from error
    except BelowFloor as error:
        # It was archived after the look at what is retained.
        raise PastRefused(Why.NOT_RETAINED, error.floor) from error
    except JournalError as error:
        raise PastRefused(Why.DAMAGED, text=str(error)) from error

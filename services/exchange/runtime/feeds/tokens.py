"""Resume tokens: where a reader stands, and in which history.

A token carries the journal's incarnation, shard, sequence, the number of messages already seen of that sequence, and
the hash of the frame that holds it. A server that knows another frame there refuses the token (HISTORY_CHANGED). All services
that send feeds make the same tokens, so a stream goes on at any of them.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from exchange.runtime.errors import ErrorReason, ServiceError

MAX_SEQUENCE: Final = 2**62


class BadToken(ValueError):
    """The token cannot be read."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a stream. `index` is how many messages of `sequence` have been seen, -1: all of them; `stream` names
    whose place it is: a token of another book, depth or account must not be taken for one of this.
    """

    incarnation: str
    shard: int
    sequence: int
    index: int
    frame_hash: str
    stream: str = ""

    def token(self) -> str:
        """The token of this place."""
        text = f"{self.incarnation}|{self.shard}|{self.sequence}|{self.index}|{self.frame_hash}|{self.stream}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def short_hash(frame_hash: bytes) -> str:
    """As much of a frame's hash as a token carries."""
    return frame_hash[:8].hex()


def parse(token: str) -> Position:
    """The place that a token names. Raises BadToken."""
    try:
        text = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4)).decode("ascii")
        incarnation, shard, sequence, index, frame_hash, stream = text.split("|")
        position = Position(incarnation, int(shard), int(sequence), int(index), frame_hash, stream)
    except (ValueError, binascii.Error) as error:
        raise BadToken(token[:64]) from error
    if not 0 <= position.sequence <= MAX_SEQUENCE or position.index < -1:
        raise BadToken(token[:64])
    return position


class Tokens:
    """Makes and reads the tokens of one stream in one history; the nameless stream is the event bus."""

    def __init__(self, incarnation: str, shard: int, stream: str = "") -> None:
        self.incarnation = incarnation
        self.shard = shard
        self.stream = stream

    def of(self, stream: str) -> Tokens:
        """Those of another stream of the same history."""
        return Tokens(self.incarnation, self.shard, stream)

    def token(self, sequence: int, frame_hash: bytes, index: int = -1) -> str:
        """The token of a place; `index` counts messages of `sequence` already seen, -1 for all."""
        return Position(self.incarnation, self.shard, sequence, index, short_hash(frame_hash), self.stream).token()

    def position(self, token: str) -> Position:
        """The place of a token, in whichever history. Raises ServiceError INVALID_RESUME_TOKEN."""
        try:
            position = parse(token)
        except BadToken:
            raise ServiceError(ErrorReason.INVALID_RESUME_TOKEN, metadata={"field": "resume_token"}) from None
        if position.stream != self.stream:
            raise ServiceError(
                ErrorReason.INVALID_RESUME_TOKEN,
                "the resume token belongs to another stream",
                metadata={"field": "resume_token"},
            )
        return position

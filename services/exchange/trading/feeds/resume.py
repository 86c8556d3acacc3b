"""Resume tokens: where a reader stands, and in which history.

A token carries the journal's incarnation, shard, sequence, the number of messages already seen of that sequence, and
the hash of the frame that holds it. A server whose journal has another frame there refuses the token (HISTORY_CHANGED).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from exchange.trading.feeds.hub import Hub

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


async def same_history(position: Position, incarnation: str, shard: int, hub: Hub) -> bool:
    """Whether the journal holds the very frame that the token was made from."""
    if position.incarnation != incarnation or position.shard != shard:
        return False
    if position.sequence == 0:
        return True
    async for frame in hub.read(position.sequence):
        return short_hash(frame.frame_hash) == position.frame_hash
    return False

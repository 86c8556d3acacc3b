"""What the history has published, as the services ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.market_data.history import State
from exchange.market_data.service.places import ARRIVAL_WAIT_S
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.feeds.tokens import parse

if TYPE_CHECKING:
    from exchange.market_data.books import Books
    from exchange.market_data.books import Market as BookMarket
    from exchange.market_data.history import Days, History
    from exchange.market_data.service.places import Places
    from exchange.runtime.feeds.tokens import Position, Tokens


def published(history: History) -> Days:
    """What can be told now. Raises ServiceError NOT_READY before the first event, and where the history cannot go on."""
    days = history.days
    if history.state is State.STOPPED:
        raise ServiceError(ErrorReason.NOT_READY, "candles and tickers have stopped: an operator must look")
    if days is None or not days.resume_token:
        raise ServiceError(ErrorReason.NOT_READY, "candles and tickers are being read: ask again")
    return days


def frame_hash_of(resume_token: str) -> bytes:
    """The hash of the frame that a token of the engine's event stream stands behind, as much of it as tokens carry."""
    return bytes.fromhex(parse(resume_token).frame_hash)


def known_market(books: Books, symbol: str) -> BookMarket:
    """A market by any form of its name. Raises ServiceError NOT_READY while none is known, FIELD_REQUIRED, UNKNOWN_SYMBOL."""
    if not books.sequence:
        raise ServiceError(ErrorReason.NOT_READY)
    return books.market(symbol)


async def place_of(places: Places, tokens: Tokens, resume_token: str, history: History) -> Position | None:
    """Where a client stands in a stream of the history; None without a token. Raises ServiceError as `Places.read`."""
    if not resume_token:
        return None
    position = await places.read(tokens, resume_token)
    if not await history.reached(position.sequence, ARRIVAL_WAIT_S):
        raise ServiceError(ErrorReason.SEQUENCE_IN_FUTURE, metadata={"head_sequence": history.sequence})
    return position

"""Whether a resume token is of this history: the journal holds the very frame that it was made from."""

from __future__ import annotations

from exchange.runtime.feeds.tokens import Position, short_hash
from exchange.trading.feeds.hub import Hub


async def same_history(position: Position, incarnation: str, shard: int, hub: Hub) -> bool:
    """Whether the journal holds the very frame that the token was made from."""
    if position.incarnation != incarnation or position.shard != shard:
        return False
    if position.sequence == 0:
        return True
    async for frame in hub.read(position.sequence):
        return short_hash(frame.frame_hash) == position.frame_hash
    return False

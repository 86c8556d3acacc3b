"""Following one account through the durable frames: what the order and the balance stream are made of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.trading.core.events import Event
from exchange.trading.feeds.hub import Hub, accounts_of
from exchange.trading.sequencer import Committed
from exchange.trading.service.streaming import durable


@dataclass(frozen=True, slots=True)
class AccountCommand:
    """A durable command that concerns the account."""

    sequence: int
    time_ns: int
    frame_hash: bytes
    events: list[Event]


async def follow_account(
    hub: Hub, account: str, after: int, heartbeat_s: float
) -> AsyncIterator[AccountCommand | None]:
    """Commands that concern the account, after a sequence; None each time that nothing came for `heartbeat_s`.

    Ends when the hub closes. Raises ServiceError NOT_READY when another core serves: the history may be another one, which
    the reader's token will tell. A reader that is slow holds nothing here: it reads on from memory or from the journal.
    """
    position, cores = after, hub.cores
    while True:
        async for committed in durable(hub, position + 1):
            for command in _concerning(committed, account, position):
                yield command
            position = committed.last_sequence
        if hub.closed:
            return
        if hub.cores != cores:
            raise ServiceError(ErrorReason.NOT_READY)
        # No await since the head was read: a frame that comes now finds the waiter there.
        if not await hub.wait_account(account, heartbeat_s):
            yield None


def _concerning(committed: Committed, account: str, after: int) -> list[AccountCommand]:
    return [
        AccountCommand(committed.first_sequence + offset, committed.time_ns, committed.frame_hash, events)
        for offset, events in enumerate(committed.events)
        if committed.first_sequence + offset > after and any(account in accounts_of(event) for event in events)
    ]

"""How new an answer is: as new as all that was durable when it was asked for, like an engine's; or at a sequence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from exchange.runtime.errors import ErrorReason, ServiceError
from pincex.trading.v1 import market_service_pb2, market_service_pb2_grpc

if TYPE_CHECKING:
    from exchange.market_data.books import Books
    from exchange.market_data.follower import Follower
    from exchange.runtime.internal_client import InternalClient

# How long a read waits for its `min_sequence`.
READ_WAIT_S: Final = 2.0
# For the engine's word and what comes until it; a read that gets none is answered from what is here.
FRESH_S: Final = 0.5


class Reading:
    """Makes reads wait. One question to the engine serves all who came before it was asked."""

    def __init__(self, follower: Follower, books: Books, client: InternalClient) -> None:
        self._follower = follower
        self._books = books
        self._client = client
        self._asking: asyncio.Task[int] | None = None
        self._next: asyncio.Task[int] | None = None

    async def reach(self, min_sequence: int) -> None:
        """Return once this service is as new as a read must be. Raises ServiceError NOT_READY, SEQUENCE_NOT_REACHED."""
        if min_sequence:
            self._check()
            if not await self._follower.reached(min_sequence, READ_WAIT_S):
                raise ServiceError(ErrorReason.SEQUENCE_NOT_REACHED, metadata={"sequence": self._follower.sequence})
        else:
            await self.fresh()

    async def fresh(self) -> None:
        """Return once all that is durable now is here, or after a while. Raises ServiceError NOT_READY."""
        self._check()
        try:
            async with asyncio.timeout(FRESH_S):
                head = await self._ask()
                await self._follower.reached(head, FRESH_S)
        except (TimeoutError, ServiceError):
            # While nobody leads, or no engine answers, a read is answered from what is here, as an engine does.
            return

    def _check(self) -> None:
        if not self._follower.ready or not self._books.markets:
            raise ServiceError(ErrorReason.NOT_READY)

    async def _ask(self) -> int:
        """What is durable, by a question that is asked after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._asking))
        return await asyncio.shield(self._next)

    async def _after(self, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait([before])
        self._asking, self._next = self._next, None
        stub: Any = market_service_pb2_grpc.MarketServiceStub(self._client.channel)
        request = market_service_pb2.GetMarketRequest(symbol=next(iter(self._books.markets)))
        try:
            market = await self._client.call(stub.GetMarket, request, deadline_s=FRESH_S)
        except ServiceError:
            # Nobody may be waiting any more.
            return 0
        return int(market.sequence)

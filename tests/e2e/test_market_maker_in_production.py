"""The market maker as a customer in production: the key that the first start left opens its session, through the real edge."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from exchange.market_maker.config import KEY_FILE
from exchange.market_maker.exchange import Away
from exchange.market_maker.service.edge import open_edge
from exchange.market_maker.service.markets import EdgeMarkets
from exchange.market_maker.service.order_session import EdgeSession
from tests.stack_fixture import READY_DEADLINE_S

if TYPE_CHECKING:
    from tests.stack_fixture import ProductionStack


async def opened(session: EdgeSession) -> int:
    """As the market maker does: again, until it is taken. For 5 s after a first start the exchange takes no signature."""
    async with asyncio.timeout(READY_DEADLINE_S):
        while True:
            try:
                return await session.ping()
            except Away:
                await asyncio.sleep(0.1)


async def test_the_key_of_the_first_start_opens_an_order_session(production_stack: ProductionStack) -> None:
    exchange = production_stack.exchange
    edge = open_edge(exchange.edge_address, exchange.home / "secrets" / KEY_FILE)
    try:
        session = EdgeSession(edge)
        assert await opened(session) > 0
        assert await EdgeMarkets(edge).open_orders() == 0
        assert edge.account.isdigit(), "the account of a user"
        await session.close()
        assert not session.is_open
    finally:
        await edge.channel.close(None)

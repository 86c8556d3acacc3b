import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from pincex_client import ExchangeClient, RetryPolicy
from tests.unit.client.fake_exchange import FakeExchange
from tests.unit.client.fake_server import FakeServer

DEADLINE_S = 20.0
QUICK = RetryPolicy(deadline=5.0, attempt_timeout=2.0, first_delay=0.005, max_delay=0.05)


@pytest.fixture
async def exchange() -> FakeExchange:
    """An exchange with the market BTCUSD."""
    made = FakeExchange()
    made.add_market("BTCUSD")
    return made


@pytest.fixture
async def server(exchange: FakeExchange) -> AsyncIterator[FakeServer]:
    """The exchange, served."""
    served = await FakeServer(exchange).start()
    yield served
    exchange.hold.set()
    await served.stop()


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[ExchangeClient]:
    """A client that retries quickly."""
    async with ExchangeClient(server.target, ops_target=server.target, account="demo", policy=QUICK) as made:
        yield made


async def until(condition: Callable[[], object], what: str) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the thing waited for is a counter
            await asyncio.sleep(0)
    assert condition(), what

"""Waiting for a condition, with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable

DEADLINE_S = 30.0


async def until(condition: Callable[[], bool | Awaitable[bool]], deadline_s: float = DEADLINE_S) -> None:
    """Return once the condition holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(deadline_s):
        while True:
            holds = condition()
            if isinstance(holds, Awaitable):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.002)

"""Settlement's word on whether withdrawals may go out: closed while books do not agree, or nobody can say."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol

from exchange.runtime.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_AGE_S: Final = 1.0
"""For how long settlement's answer counts."""


class Settlement(Protocol):
    """SettlementService, as far as it is needed here."""

    async def why_closed(self) -> str:
        """What keeps withdrawals in, "" for nothing. Raises ServiceError."""
        ...


class WithdrawalGate:
    """Settlement's word, asked at most once a second. Who cannot be reached has the gate closed."""

    def __init__(self, settlement: Settlement, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settlement = settlement
        self._monotonic = monotonic
        self._asking = asyncio.Lock()
        self._answer = ""
        self._asked_at = float("-inf")

    async def why_closed(self) -> str:
        """What keeps withdrawals in, "" for nothing."""
        async with self._asking:
            # The answer is as old as the question.
            now = self._monotonic()
            if now - self._asked_at >= MAX_AGE_S:
                try:
                    self._answer = await self._settlement.why_closed()
                except ServiceError as error:
                    self._answer = f"settlement does not answer: {error}"
                self._asked_at = now
            return self._answer

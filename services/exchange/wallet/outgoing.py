"""The worker's rounds over money that goes out: every withdrawal and transfer that is not at its end is driven on.

What could not be moved is left alone for a while, longer each time, so that one that is stuck delays no other.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from exchange.runtime.errors import ServiceError
from exchange.wallet.connector import ConnectorAway
from exchange.wallet.withdrawals import APPROVED, BROADCAST, SENDING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from exchange.wallet.stops import Stops
    from exchange.wallet.transfers import Transfer, Transfers
    from exchange.wallet.withdrawal_metrics import WithdrawalMetrics
    from exchange.wallet.withdrawal_steps import WithdrawalSteps
    from exchange.wallet.withdrawals import Withdrawals

AT_ONCE: Final = 4
"""Withdrawals that are driven side by side; each needs a connection of the pool now and then."""
PAGE: Final = 200
ROUND_EVERY_S: Final = 0.2
COUNT_EVERY_S: Final = 1.0
LEFT_TO_CALLS: Final = timedelta(seconds=1)
"""What an account has just asked for is driven by the call that it waits for: the worker takes up what is older."""
WAITING_S: Final = 1.0
"""How often a network is asked about one withdrawal, and whether one that may not go out may now."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
# As far as they go now; what waits for an operator is not driven before he has decided.
_WAITING: Final = frozenset({APPROVED, SENDING, BROADCAST})


class Outgoing:
    """A driver of the worker."""

    name = "outgoing"
    every_s = ROUND_EVERY_S

    def __init__(
        self,
        *,
        withdrawals: Withdrawals,
        steps: WithdrawalSteps,
        transfers: Transfers,
        stops: Stops,
        metrics: WithdrawalMetrics,
        monotonic: Callable[[], float] = time.monotonic,
        left_to_calls: timedelta = LEFT_TO_CALLS,
    ) -> None:
        self._withdrawals = withdrawals
        self._steps = steps
        self._transfers = transfers
        self._stops = stops
        self._metrics = metrics
        self._monotonic = monotonic
        self._left_to_calls = left_to_calls
        # (not before, pause) by what failed last, or waits; the pause of what waits is 0.
        self._resting: dict[str, tuple[float, float]] = {}
        self._count_at = float("-inf")
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("outgoing")

    async def drive(self) -> bool:
        """One round over all that is open; never more to do at once. Raises ServiceError NOT_READY without the database."""
        due: set[str] = set()
        after = 0
        while page := await self._withdrawals.due(after, PAGE, self._left_to_calls):
            after = page[-1][1]
            due.update(one for one, _ in page)
            await asyncio.gather(*(self._try("withdrawal", one, self._withdrawal(one)) for one, _ in page))
        after = 0
        while found := await self._transfers.due(after, PAGE, self._left_to_calls):
            after = found[-1].number
            due.update(one.transfer_id for one in found)
            for one in found:
                await self._try("transfer", one.transfer_id, self._transfer(one))
        self._resting = {one: rest for one, rest in self._resting.items() if one in due}
        await self._count()
        return False

    async def _count(self) -> None:
        """For the metrics, now and then."""
        if self._monotonic() < self._count_at:
            return
        self._metrics.seen(await self._withdrawals.counts(), stopped=bool(await self._stops.why()))
        self._count_at = self._monotonic() + COUNT_EVERY_S

    def _withdrawal(self, withdrawal_id: str) -> Callable[[], Awaitable[bool]]:
        async def drive() -> bool:
            return (await self._steps.drive(withdrawal_id)).status in _WAITING

        return drive

    def _transfer(self, found: Transfer) -> Callable[[], Awaitable[bool]]:
        async def drive() -> bool:
            await self._transfers.carry_out(found)
            return False

        return drive

    async def _try(self, kind: str, name: str, work: Callable[[], Awaitable[bool]]) -> None:
        """Do it, unless it rests; `work` says whether it waits for somebody else now."""
        not_before, pause = self._resting.get(name, (0.0, 0.0))
        if self._monotonic() < not_before:
            return
        try:
            async with self._at_once:
                waits = await work()
        except (ServiceError, ConnectorAway) as error:
            self._rest(kind, name, pause, repr(error))
        except Exception as error:  # noqa: BLE001 - a defect in one must not keep the others
            self._log.exception("not driven on", kind=kind, name=name)
            self._rest(kind, name, pause, repr(error))
        else:
            self._resting.pop(name, None)
            if waits:
                self._resting[name] = (self._monotonic() + WAITING_S, 0.0)

    def _rest(self, kind: str, name: str, pause: float, error: str) -> None:
        pause = min(2 * pause, LONGEST_PAUSE_S) if pause else FIRST_PAUSE_S
        self._resting[name] = (self._monotonic() + pause, pause)
        self._metrics.failed(kind)
        self._log.warning("not driven on: tried again", kind=kind, name=name, pause_s=pause, error=error)

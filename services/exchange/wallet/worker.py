"""Who drives everything forward: one instance of all, the one that holds an advisory lock; the others stand by.

Two may believe to hold it for a moment, when a session has ended and its holder has not noticed. That harms nothing: every
step moves a row only from the state in which it was found, and whatever is asked outside happens once for its id.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from exchange.runtime import postgres
from exchange.runtime.errors import ServiceError
from exchange.wallet.connector import ConnectorAway

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKER_LOCK: Final = 0x57_41_4C_4C_45_54
RETRY_S: Final = 0.5
STANDBY_POLL_S: Final = 0.5
# The session that holds the lock is asked whether it still lives.
PROBE_S: Final = 1.0
PROBE_TIMEOUT_S: Final = 5.0


class State(StrEnum):
    """What an instance does."""

    STARTING = "STARTING"
    STANDBY = "STANDBY"
    WAITING_FOR_DATABASE = "WAITING_FOR_DATABASE"
    RUNNING = "RUNNING"


class Driver(Protocol):
    """One kind of work. `every_s` is the pause after a round that found nothing to do."""

    name: str
    every_s: float

    async def drive(self) -> bool:
        """Move on what can be moved now; whether there may be more at once. May raise ServiceError and ConnectorAway."""
        ...


class Worker:
    """One instance's part in it."""

    def __init__(self, database_url: str, instance: str, drivers: Sequence[Driver]) -> None:
        self._database_url = database_url
        self._name = f"pincex-{instance} worker"
        self._drivers = drivers
        self.state = State.STARTING
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("worker")

    @property
    def is_driving(self) -> bool:
        """Whether this instance is the one."""
        return self.state is State.RUNNING

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._hold_and_drive()
            except postgres.CONNECTION_ERRORS as error:
                self.state = State.WAITING_FOR_DATABASE
                self._log.warning("the worker's session has ended", error=repr(error))
            await asyncio.sleep(RETRY_S)

    async def _hold_and_drive(self) -> None:
        connection = await postgres.connect(self._database_url, application_name=self._name)
        try:
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", WORKER_LOCK):
                self.state = State.STANDBY
                await asyncio.sleep(STANDBY_POLL_S)
            self.state = State.RUNNING
            self._log.info("this instance moves deposits and withdrawals on")
            rounds = [asyncio.create_task(self._repeat(driver), name=driver.name) for driver in self._drivers]
            try:
                while True:
                    await asyncio.sleep(PROBE_S)
                    await connection.fetchval("SELECT 1", timeout=PROBE_TIMEOUT_S)
            finally:
                for task in rounds:
                    task.cancel()
                await asyncio.gather(*rounds, return_exceptions=True)
        finally:
            connection.terminate()

    async def _repeat(self, driver: Driver) -> None:
        while True:
            more = False
            try:
                more = await driver.drive()
            except (ServiceError, ConnectorAway) as error:
                self._log.warning("work waits", driver=driver.name, error=str(error))
                await asyncio.sleep(RETRY_S)
            except Exception:  # noqa: BLE001 - a defect in one round must not end the others
                self._log.exception("work failed", driver=driver.name)
                await asyncio.sleep(RETRY_S)
            # With more to do, only long enough for others to have a turn.
            await asyncio.sleep(0 if more else driver.every_s)

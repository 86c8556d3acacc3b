"""What the writing instance does from time to time: compare with the engine, and drive on what is approved."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from exchange.runtime.errors import ServiceError
from exchange.settlement.corrections import DRIVE_EVERY_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from exchange.settlement.corrections import Corrections
    from exchange.settlement.reconciliation import Reconciler
    from exchange.settlement.settler import Settler

SOON_S: Final = 0.1
AGAIN_S: Final = 2.0


class Upkeep:
    """Two loops; instances that stand by leave the work to the writer."""

    def __init__(
        self, settler: Settler, reconciler: Reconciler, corrections: Corrections, reconcile_every_s: float
    ) -> None:
        self._settler = settler
        self._reconciler = reconciler
        self._corrections = corrections
        self._reconcile_every_s = reconcile_every_s
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("upkeep")

    async def run(self) -> None:
        """Until cancelled; what fails is tried again for ever."""
        await asyncio.gather(
            self._every(self._reconcile_every_s, self._reconciler.reconcile, "not compared with the engine"),
            self._every(DRIVE_EVERY_S, self._corrections.drive_all, "corrections are not driven on"),
        )

    async def _every(self, seconds: float, work: Callable[[], Awaitable[object]], what: str) -> None:
        while True:
            if not self._settler.is_writer:
                # It may become one at any moment, and until it has compared once no withdrawal goes out.
                await asyncio.sleep(min(seconds, SOON_S))
                continue
            pause = seconds
            try:
                await work()
            except ServiceError as error:
                self._log.warning(what, error=str(error))
                pause = min(seconds, AGAIN_S)
            except Exception:  # noqa: BLE001 - a defect in one round must not end the others
                self._log.exception(what)
            await asyncio.sleep(pause)

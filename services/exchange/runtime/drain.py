"""The announcement that a server is about to stop, for whoever should leave in good order."""

import asyncio

from exchange.runtime.clock import Clock, SystemClock


class Drain:
    """Set once, when the server begins to stop.

    A stream handler waits for it beside its own work, sends its drain notice and returns; work that has not ended by
    `deadline` is cut off.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._event = asyncio.Event()
        self._deadline: float | None = None

    def begin(self, deadline: float) -> None:
        """Announce the stop; `deadline` is on the clock's `monotonic()`. A second call changes nothing."""
        if self._deadline is None:
            self._deadline = deadline
            self._event.set()

    def is_set(self) -> bool:
        """Whether the stop was announced."""
        return self._deadline is not None

    @property
    def deadline(self) -> float | None:
        """When what still runs is cut off, on the clock's `monotonic()`; None before the announcement."""
        return self._deadline

    def time_remaining(self) -> float | None:
        """Seconds until the cut, at least 0; None before the announcement."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock.monotonic())

    async def wait(self) -> None:
        """Return once the stop is announced."""
        await self._event.wait()

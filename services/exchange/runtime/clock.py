"""Time as an argument: the sequencer, the replicas and the tests decide what now is."""

import time
from typing import Final, Protocol

_NS_PER_SECOND: Final = 1_000_000_000


class Clock(Protocol):
    """Where the time comes from."""

    def time_ns(self) -> int:
        """Nanoseconds since the Unix epoch; may step backwards when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never goes backwards. For measuring and deadlines only."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def time_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic()


class ManualClock:
    """A clock that stands until a test moves it."""

    __slots__ = ("_monotonic_ns", "_time_ns")

    def __init__(self, time_ns: int = 1_700_000_000 * _NS_PER_SECOND) -> None:
        self._time_ns = time_ns
        self._monotonic_ns = 0

    def time_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return self._time_ns

    def monotonic(self) -> float:
        """Seconds that `advance` has moved the clock since it was made."""
        return self._monotonic_ns / _NS_PER_SECOND

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError for negative seconds: monotonic time never goes backwards."""
        if seconds < 0:
            raise ValueError("time does not go backwards; set_time_ns moves the wall clock")
        step = round(seconds * _NS_PER_SECOND)
        self._time_ns += step
        self._monotonic_ns += step

    def set_time_ns(self, time_ns: int) -> None:
        """Set the wall clock, backwards too, as an administrator or NTP does; monotonic time stands."""
        self._time_ns = time_ns

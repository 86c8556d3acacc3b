"""How many failed attempts are free, and what the others cost."""

from __future__ import annotations

from dataclasses import dataclass

from exchange.runtime.config import Environment


@dataclass(frozen=True, slots=True)
class ThrottlePolicy:
    """How many failures are free, and what the others cost.

    From the failure after `free_attempts` on a name waits 1, 2, 4 ... `max_delay_s` seconds. `name_limit` failures within
    the window lock its log-in for `lock_s`; `address_limit` failures from one address, whatever the names, block that.
    """

    free_attempts: int = 3
    max_delay_s: int = 60
    name_limit: int = 10
    address_limit: int = 30
    window_s: int = 900
    lock_s: int = 900

    @classmethod
    def read(cls, environment: Environment) -> ThrottlePolicy:
        """Read the variables of docs/AUTH.md. Raises ConfigError, naming the variable."""
        name_limit = environment.integer("PINCEX_LOGIN_NAME_LIMIT", cls().name_limit, minimum=2, maximum=1_000)
        return cls(
            free_attempts=min(cls().free_attempts, name_limit - 1),
            name_limit=name_limit,
            address_limit=environment.integer(
                "PINCEX_LOGIN_ADDRESS_LIMIT", cls().address_limit, minimum=2, maximum=100_000
            ),
            window_s=environment.integer("PINCEX_LOGIN_WINDOW_SECONDS", cls().window_s, minimum=10, maximum=86_400),
            lock_s=environment.integer("PINCEX_LOGIN_LOCK_SECONDS", cls().lock_s, minimum=10, maximum=86_400),
        )

    def name_wait_s(self, failures: int) -> float:
        """How long a name waits after its newest failure, that many lying in the window before it."""
        if failures >= self.name_limit:
            return self.lock_s
        if failures <= self.free_attempts:
            return 0.0
        return float(min(self.max_delay_s, 2 ** (failures - self.free_attempts - 1)))

    def address_wait_s(self, failures: int) -> float:
        """The same of an address."""
        return self.lock_s if failures >= self.address_limit else 0.0

"""A service of ours: `python -m exchange.<name>`, with ports and databases handed over in its environment."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from typing import TYPE_CHECKING

from exchange.stack.errors import StackError
from exchange.stack.files import tail
from exchange.stack.net import answers, http
from exchange.stack.service import Launch, Plain, Traits
from exchange.stack.spawn import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MIGRATE_MODULE = "exchange.runtime.migrate"
MIGRATE_TIMEOUT_S = 300.0


# What a port is for, and the variable that tells a service its number.
PORT_VARIABLES = {
    "grpc": "PINCEX_GRPC_PORT",
    "ops_grpc": "PINCEX_OPS_GRPC_PORT",
    "metrics": "PINCEX_METRICS_PORT",
    "gate": "PINCEX_GATE_PORT",
    "ws": "PINCEX_WS_PORT",
    "debug": "PINCEX_DEBUG_PORT",
}


class Migrations:
    """The tables of all services, brought up to date before any of these starts. One for all of them."""

    def __init__(self, admin_url: str, home: Path, environment: Mapping[str, str]) -> None:
        """`admin_url` is of the tables' owner; what is said goes to `logs/migrate.log`."""
        self._environment = {**environment, "PINCEX_ADMIN_DATABASE_URL": admin_url}
        self._home = home
        self._one_at_a_time = asyncio.Lock()
        self._done = False

    async def once(self) -> None:
        """Runs them unless that was done since `up`. Raises StackError with the end of their log."""
        async with self._one_at_a_time:
            if not self._done:
                await self._run()
                self._done = True

    async def again(self) -> None:
        """Runs those of the build that is installed now. Raises StackError."""
        async with self._one_at_a_time:
            await self._run()

    async def _run(self) -> None:
        if importlib.util.find_spec(MIGRATE_MODULE) is None:
            return
        log = self._home / "logs" / "migrate.log"
        with log.open("ab") as output:
            argv = (sys.executable, "-m", MIGRATE_MODULE, "run")
            process = await spawn(Launch(argv, self._environment, self._home), output.fileno())
            try:
                async with asyncio.timeout(MIGRATE_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                raise StackError(f"the migrations took longer than {MIGRATE_TIMEOUT_S:g} s; log: {log}") from None
        if process.returncode:
            last = "\n".join(f"    {line}" for line in tail(log, 8))
            raise StackError(f"the migrations failed (exit status {process.returncode}); log: {log}\n{last}")


class PythonService(Plain):
    """Starts `module` for each instance. `upstreams` says for the edge's names which port of an instance serves them."""

    def __init__(
        self,
        traits: Traits,
        module: str,
        folder: Path,
        environment: Callable[[], Mapping[str, str]],
        ports: Callable[[int], Mapping[str, int]],
        upstreams: Mapping[str, str],
        migrations: Migrations | None = None,
    ) -> None:
        """`environment` is what all instances share, asked anew by `renew`; `ports` is asked once for each instance, and
        answers by the names of PORT_VARIABLES.
        """
        super().__init__(traits)
        self._module = module
        self._folder = folder
        self._read_environment = environment
        self._environment = environment()
        self._choose_ports = ports
        self._upstreams = upstreams
        self._migrations = migrations
        self._chosen: dict[int, Mapping[str, int]] = {}

    def instance_name(self, number: int) -> str:
        """As `pincex kill` takes it."""
        return f"{self.traits.name}-{number}" if self.traits.numbered else self.traits.name

    def ports(self, number: int) -> Mapping[str, int]:
        """All ports that the instance listens on."""
        if number not in self._chosen:
            self._chosen[number] = self._choose_ports(number)
        return self._chosen[number]

    def endpoints(self, number: int) -> Mapping[str, int]:
        """One port for each of the upstreams."""
        ports = self.ports(number)
        return {upstream: ports[kind] for upstream, kind in self._upstreams.items()}

    async def prepare(self) -> None:
        """Has the tables made. Raises StackError with the end of the migrations' log."""
        if self._migrations is not None:
            await self._migrations.once()

    async def renew(self) -> None:
        """Reads the settings again, and runs the migrations of the build that is installed now. Raises StackError."""
        self._environment = await asyncio.to_thread(self._read_environment)
        if self._migrations is not None:
            await self._migrations.again()

    def launch(self, number: int) -> Launch:
        """The interpreter that runs us, so the same packages."""
        ports = {PORT_VARIABLES[kind]: str(port) for kind, port in self.ports(number).items()}
        environment = {**self._environment, "PINCEX_INSTANCE": self.instance_name(number), **ports}
        return Launch([sys.executable, "-m", self._module], environment, self._folder)

    async def is_ready(self, number: int) -> bool:
        """Whether `/readyz` on the metrics port is 200."""
        return await answers(self.ports(number)["metrics"], "/readyz")

    async def role(self, number: int) -> str:
        """What `/role` answers, else the usual one."""
        found = await http(self.ports(number)["metrics"], "/role", timeout_s=0.5)
        role = found[1].decode(errors="replace").strip() if found is not None and found[0] == 200 else ""
        return role or self.traits.role

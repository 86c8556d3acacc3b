"""A service of ours: `python -m exchange.<name>`, with ports and databases handed over in its environment."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class InstancePorts:
    """`grpc` for clients, `ops` for operators, `metrics` is plain HTTP; `debug` is 0 for none."""

    grpc: int
    ops: int
    metrics: int
    debug: int = 0


@dataclass(frozen=True, slots=True)
class Migration:
    """Tables to bring up to date before the service starts; `admin_url` is asked late, as its port is."""

    admin_url: str
    log: Path


class PythonService(Plain):
    """Starts `module` for each instance. `upstreams` are the edge's names for (grpc, ops)."""

    def __init__(
        self,
        traits: Traits,
        module: str,
        folder: Path,
        environment: Callable[[], Mapping[str, str]],
        ports: Callable[[int], InstancePorts],
        upstreams: tuple[str, str],
        migration: Migration | None = None,
    ) -> None:
        """`environment` is what all instances share, asked anew by `renew`; `ports` is asked once for each instance."""
        super().__init__(traits)
        self._module = module
        self._folder = folder
        self._read_environment = environment
        self._environment = environment()
        self._choose_ports = ports
        self._upstreams = upstreams
        self._migration = migration
        self._chosen: dict[int, InstancePorts] = {}

    def instance_name(self, number: int) -> str:
        """As `pincex kill` takes it."""
        return f"{self.traits.name}-{number}"

    def ports(self, number: int) -> Mapping[str, int]:
        """All ports that the instance listens on."""
        ports = self._ports(number)
        found = {"grpc": ports.grpc, "ops_grpc": ports.ops, "metrics": ports.metrics}
        return {**found, "debug": ports.debug} if ports.debug else found

    def endpoints(self, number: int) -> Mapping[str, int]:
        """One port for each of the two upstreams."""
        ports = self._ports(number)
        return dict(zip(self._upstreams, (ports.grpc, ports.ops), strict=True))

    async def prepare(self) -> None:
        """Runs the migrations. Raises StackError with the end of their log."""
        if self._migration is None or importlib.util.find_spec(MIGRATE_MODULE) is None:
            return
        log, url = self._migration.log, self._migration.admin_url
        environment = {**self._environment, "PINCEX_ADMIN_DATABASE_URL": url}
        with log.open("ab") as output:
            argv = (sys.executable, "-m", MIGRATE_MODULE, "run")
            process = await spawn(Launch(argv, environment, self._folder), output.fileno())
            try:
                async with asyncio.timeout(MIGRATE_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                raise StackError(f"the migrations took longer than {MIGRATE_TIMEOUT_S:g} s; log: {log}") from None
        if process.returncode:
            last = "\n".join(f"    {line}" for line in tail(log, 8))
            raise StackError(f"the migrations failed (exit status {process.returncode}); log: {log}\n{last}")

    async def renew(self) -> None:
        """Reads the settings again, and runs the migrations of the build that is installed now. Raises StackError."""
        self._environment = await asyncio.to_thread(self._read_environment)
        await self.prepare()

    def launch(self, number: int) -> Launch:
        """The interpreter that runs us, so the same packages."""
        ports = self._ports(number)
        environment = {
            **self._environment,
            "PINCEX_INSTANCE": self.instance_name(number),
            "PINCEX_GRPC_PORT": str(ports.grpc),
            "PINCEX_OPS_GRPC_PORT": str(ports.ops),
            "PINCEX_METRICS_PORT": str(ports.metrics),
        }
        # What the operator set for the stack must not reach every instance.
        environment.pop("PINCEX_DEBUG_PORT", None)
        if ports.debug:
            environment["PINCEX_DEBUG_PORT"] = str(ports.debug)
        return Launch([sys.executable, "-m", self._module], environment, self._folder)

    async def is_ready(self, number: int) -> bool:
        """Whether `/readyz` on the metrics port is 200."""
        return await answers(self._ports(number).metrics, "/readyz")

    async def role(self, number: int) -> str:
        """What `/role` answers, else the usual one."""
        found = await http(self._ports(number).metrics, "/role", timeout_s=0.5)
        role = found[1].decode(errors="replace").strip() if found is not None and found[0] == 200 else ""
        return role or self.traits.role

    def _ports(self, number: int) -> InstancePorts:
        if number not in self._chosen:
            self._chosen[number] = self._choose_ports(number)
        return self._chosen[number]

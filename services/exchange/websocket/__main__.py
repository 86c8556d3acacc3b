"""The WebSocket process: reads the environment once, builds everything, runs until a signal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from exchange.runtime.ending import end_process
from exchange.runtime.service_app import ServiceApp, run_service
from exchange.websocket.config import SERVICE, Config
from exchange.websocket.counts import Counts
from exchange.websocket.feed import Feeds
from exchange.websocket.fleet import Fleet, Share
from exchange.websocket.metrics import WebSocketMetrics
from exchange.websocket.server import WebSocketServer
from exchange.websocket.service.connections import add_operator_services
from exchange.websocket.service.edge import EdgeExchange

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

ADDRESSES_PUBLISHED: Final = 100


class App(ServiceApp):
    """Everything of one instance, wired."""

    def __init__(self, config: Config) -> None:
        super().__init__(config.common, config.database_url)
        self._config = config
        self.exchange = EdgeExchange(config.edge_target)
        counts = Counts()
        feeds = Feeds(self.exchange.source, config.limits, counts)
        self.server = WebSocketServer(self.exchange, feeds, config.limits, counts, instance=self.instance)
        self.fleet = Fleet(config.redis_url, self._share, self.server.clean_up)
        add_operator_services(self.ops, self.fleet)
        WebSocketMetrics(self.registry, self.server, lambda: self.exchange.streams)

    async def open(self) -> None:
        """See `ServiceApp`."""
        await self.server.start(self._config.ws_port, ready=self._ready)

    def tasks(self) -> Iterable[Coroutine[Any, Any, None]]:
        """See `ServiceApp`."""
        return (self.fleet.publish(), self.fleet.obey())

    async def close(self) -> None:
        """See `ServiceApp`: clients leave within what is left of the grace."""
        await self.server.drain(self.drain.time_remaining() or 0.0)
        await self.server.stop()
        await self.fleet.close()
        await self.exchange.close()

    def _share(self) -> Share:
        clients = self.server.clients.values()
        return Share(
            instance=self.instance,
            connections=len(clients),
            authenticated=sum(bool(client.session.account) for client in clients),
            subscriptions=sum(len(client.session.subscriptions) for client in clients),
            channels=dict(Counter(name for client in clients for name in client.session.channels)),
            addresses=dict(self.server.addresses.most_common(ADDRESSES_PUBLISHED)),
        )


def run() -> int:
    """Exit status: 0 after a signal, 2 for a wrong environment."""
    return run_service(SERVICE, Config.read, App)


if __name__ == "__main__":
    end_process(run())

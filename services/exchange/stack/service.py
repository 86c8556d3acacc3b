"""What the supervisor must know of a service."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start. `user` is None to stay who we are; the environment is complete, not added to ours."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Traits:
    """What the supervisor treats differently from service to service.

    `needs` names services that must have been ready before this one starts; services of a lower `stop_rank` are stopped
    first. `numbered` gives instances numbered names, of which `least_instances` to `max_instances` run.
    """

    name: str
    role: str
    needs: tuple[str, ...] = ()
    stop_rank: int = 0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    ready_timeout_s: float = 30.0
    numbered: bool = False
    least_instances: int = 1
    max_instances: int = 1
    why_no_more: str = ""


class Service(Protocol):
    """A kind of process; `number` counts its instances from 1."""

    @property
    def traits(self) -> Traits:
        """What the supervisor treats differently."""

    async def prepare(self) -> None:
        """Runs before the first start of each `up`: files, migrations. Raises StackError."""

    async def renew(self) -> None:
        """Runs before an operator has instances started while others run: with the settings and tables of now. Raises
        StackError.
        """

    def launch(self, number: int) -> Launch:
        """How to start an instance. Raises StackError."""

    async def is_ready(self, number: int) -> bool:
        """Whether the instance serves; asked again and again while it starts."""

    async def attend(self) -> None:
        """Runs beside the instances, from before the first start until they are to stop; cancelled then."""

    async def before_start(self, number: int) -> None:
        """Runs before each start of an instance, for as long as it must; cancelled by a stop. Raises StackError."""

    async def provision(self) -> None:
        """Runs once each `up`, after the first instance is ready: roles, databases. Raises StackError."""

    async def drain(self) -> None:
        """Runs before the instances are told to stop; ends when they may be."""

    async def role(self, number: int) -> str:
        """What the instance is now, such as leader or follower."""

    def ports(self, number: int) -> Mapping[str, int]:
        """The ports of an instance by name."""

    def endpoints(self, number: int) -> Mapping[str, int]:
        """The edge's upstreams that this instance serves, each with its port."""


class Plain:
    """The answers of a service that needs nothing special."""

    def __init__(self, traits: Traits) -> None:
        """Keeps the traits."""
        self._traits = traits

    @property
    def traits(self) -> Traits:
        """What the supervisor treats differently."""
        return self._traits

    async def prepare(self) -> None:
        """Nothing to prepare."""

    async def renew(self) -> None:
        """Nothing that could have changed."""

    async def attend(self) -> None:
        """Nothing to look after."""

    async def before_start(self, number: int) -> None:
        """Nothing to wait for."""

    async def provision(self) -> None:
        """Nothing to provision."""

    async def drain(self) -> None:
        """Nothing to drain."""

    async def role(self, number: int) -> str:
        """The one role that it always has."""
        del number
        return self._traits.role

    def endpoints(self, number: int) -> Mapping[str, int]:
        """Serves nothing behind the edge."""
        del number
        return {}

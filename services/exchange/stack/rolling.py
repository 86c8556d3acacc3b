"""A rolling restart: one instance after the other, each ready before the next one stops, whoever leads last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from exchange.stack.control import request
from exchange.stack.errors import StackError
from exchange.stack.supervisor import LEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

# Beyond the longest delay before an instance that died is started again.
ALL_READY_TIMEOUT_S = 15.0

_POLL_S = 0.1


def roll(home: Path, service: str, say: Callable[[str], None]) -> None:
    """Restarts all instances of a service that run now, and says so for each. Raises StackError at the first that does not
    become ready again; those after it run on as they are.
    """
    request(home, "renew", service=service)
    waiting = {entry["name"] for entry in _all_ready(home, service)}
    # Asked again each time: leadership moves when its holder stops.
    while (chosen := next_of(_instances(home, service), waiting)) is not None:
        waiting.discard(chosen["name"])
        pid = request(home, "restart", name=chosen["name"])
        say(f"{chosen['name']} ({chosen['role']}): pid {chosen['pid']} -> {pid}")


def _all_ready(home: Path, service: str) -> list[dict[str, Any]]:
    """The instances, once all are ready: one that a broken setting keeps from starting comes up with the settings of now."""
    deadline = time.monotonic() + ALL_READY_TIMEOUT_S
    while True:
        instances = _instances(home, service)
        if not instances:
            raise StackError(f"no {service} runs: `pincex scale {service}=N` starts some")
        late = next((entry for entry in instances if entry["state"] != "ready"), None)
        if late is None:
            return instances
        if time.monotonic() > deadline:
            raise StackError(f"{late['name']} is {late['state']}: nothing was restarted; log: {late['log']}")
        time.sleep(_POLL_S)


def next_of(instances: Sequence[dict[str, Any]], waiting: Collection[str]) -> dict[str, Any] | None:
    """The next one to restart of those that wait for it: as they are listed, the leader last; None once all are done."""
    left = [entry for entry in instances if entry["name"] in waiting]
    followers = [entry for entry in left if entry["role"] != LEADER]
    return next(iter([*followers, *left]), None)


def _instances(home: Path, service: str) -> list[dict[str, Any]]:
    return [entry for entry in request(home, "status")["services"] if entry["service"] == service]

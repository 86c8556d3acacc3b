"""Starts the services in the order of their needs, keeps them running, stops them in order."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from exchange.runtime.audit.line_file import AUDIT_LOG, SECURITY_LOG
from exchange.stack.errors import StackError
from exchange.stack.files import bound_log, write_private
from exchange.stack.instance import Instance, State
from exchange.stack.leftovers import STATE_FILE
from exchange.stack.net import answers

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exchange.stack.service import Service, Traits
    from exchange.stack.services import Stack

# What the role of an instance is called that others follow.
LEADER = "leader"
HEALTH_TIMEOUT_S = 15.0
# How long Envoy may send new calls to an instance that is about to stop.
ENDPOINT_SETTLE_S = 0.3

_LOG_CHECK_S = 10.0
_PROBE_INTERVAL_S = 0.02


class Supervisor:
    """All instances of one data folder. Every method but `request_stop` belongs to the event loop.

    `report` gets each change as a JSON object: `{"event": "instance", "name", "state", "pid", "seconds"}`.
    """

    def __init__(self, stack: Stack, home: Path, report: Callable[[dict[str, object]], None]) -> None:
        """Starts nothing yet; the wanted numbers of instances are those of the last time."""
        self._stack = stack
        self._home = home
        self._report = report
        self._began = time.monotonic()
        self._services = {service.traits.name: service for service in stack.services}
        self._instances: list[Instance] = []
        self._tasks: dict[Instance, asyncio.Task[None]] = {}
        self._attending: dict[Service, asyncio.Task[None]] = {}
        self._unattended = ""
        self._provisioned = {name: asyncio.Event() for name in self._services}
        self._stop = asyncio.Event()
        # One change of who runs at a time.
        self._changing = asyncio.Lock()
        # Instances that the edge sends nothing to, since they are about to stop.
        self._leaving: set[Instance] = set()
        self._wanted: dict[str, int] = {}
        self.phase = "starting"

    def request_stop(self) -> None:
        """Makes `run` stop everything and return."""
        self._stop.set()

    async def run(self, wanted: Mapping[str, int], on_up: Callable[[], None]) -> None:
        """Returns when all is stopped after `request_stop`. Raises StackError if the start failed; all is stopped then."""
        self._wanted = {name: _bounded(wanted.get(name, 1), s.traits) for name, s in self._services.items()}
        # Envoy refuses a configuration whose endpoint files are not there.
        self._publish()
        try:
            if await self._bring_up_or_stop():
                self.phase = "running"
                on_up()
                await self._watch()
        finally:
            self.phase = "stopping"
            await self._stop_all()
            self.phase = "stopped"
        if self._unattended:
            raise StackError(self._unattended)

    async def scale(self, name: str, count: int) -> str:
        """Starts or stops instances; returns what was done. Raises StackError."""
        service = self._service(name)
        traits = service.traits
        if count > traits.max_instances:
            limit = f"{traits.max_instances} instance" + ("s" if traits.max_instances > 1 else "")
            reason = f": {traits.why_no_more}" if traits.why_no_more else ""
            raise StackError(f"{name} runs at most {limit} in this version{reason}")
        if count < traits.least_instances > 1:
            raise StackError(f"{name} runs {traits.least_instances} instances, not {count}")
        self._must_run()
        async with self._changing:
            present = {one.number for one in self._instances if one.service is service}
            if count > len(present):
                await service.renew()
            before = self._wanted[name]
            self._wanted[name] = count
            extra = [one for one in self._instances if one.service is service and one.number > count]
            added = [self._start(service, number) for number in range(1, count + 1) if number not in present]
            for instance in added:
                await self._until_ready(instance)
            await self._remove(extra)
            self._save()
        return f"{name}: {before} -> {count}"

    async def renew(self, name: str) -> None:
        """Makes what is started of a service from now on start with the settings and tables of now. Raises StackError."""
        self._must_run()
        service = self._services.get(name)
        if service is None:
            raise StackError(f"there is no service {name}; services: {', '.join(self._services)}")
        if service.traits.least_instances > 1:
            raise StackError(
                f"{name} is looked after by its own controller: `pincex kill` one instance, wait, then the next"
            )
        async with self._changing:
            await service.renew()

    async def restart(self, name: str) -> int:
        """Has one instance stop and start again, and returns its pid once it is ready; the edge sends it nothing meanwhile.
        Raises StackError.
        """
        self._must_run()
        async with self._changing:
            instance = self._named(name)
            self._leaving.add(instance)
            self._publish()
            try:
                if instance.service.endpoints(instance.number):
                    await asyncio.sleep(ENDPOINT_SETTLE_S)
                return await instance.restart()
            finally:
                self._leaving.discard(instance)
                self._publish()

    def kill(self, name: str, number: signal.Signals) -> int:
        """Sends a signal to an instance and returns its pid. Raises StackError."""
        return self._named(name).kill(number)

    def _named(self, name: str) -> Instance:
        for instance in self._instances:
            if instance.name == name:
                return instance
        running = ", ".join(sorted(instance.name for instance in self._instances))
        raise StackError(f"there is no {name}; running: {running}")

    def _must_run(self) -> None:
        if self.phase != "running":
            raise StackError(f"the exchange is {self.phase}; try again when it is running")

    async def status(self) -> dict[str, object]:
        """What `pincex status --json` prints."""
        roles = await asyncio.gather(*(_role(instance) for instance in self._instances))
        shown = [
            {
                "name": instance.name,
                "service": instance.service.traits.name,
                "role": role,
                "state": instance.state.value,
                "pid": instance.pid,
                "ports": dict(instance.service.ports(instance.number)),
                "restarts": instance.restarts,
                "log": str(instance.log),
            }
            for instance, role in zip(self._instances, roles, strict=True)
        ]
        found: dict[str, object] = {"state": self.phase, "services": shown, **self._stack.addresses}
        found["home"] = str(self._home)
        found["note"] = self._stack.note
        return found if self._stack.pair is None else {**found, "database": self._stack.pair.describe()}

    async def _bring_up_or_stop(self) -> bool:
        """False if a stop was asked for while the services started."""
        starting = asyncio.create_task(self._bring_up())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                return True
            return False
        finally:
            starting.cancel()
            stopping.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)

    async def _bring_up(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for service in self._services.values():
                    group.create_task(self._bring_up_service(service))
        except* StackError as errors:
            raise StackError("\n".join(str(error) for error in _leaves(errors))) from None
        for name, path in self._stack.health_paths.items():
            if self._wanted.get(name, 1):
                await self._until_healthy(name, path)

    async def _bring_up_service(self, service: Service) -> None:
        traits = service.traits
        for need in traits.needs:
            await self._provisioned[need].wait()
        await service.prepare()
        self._attending[service] = task = asyncio.create_task(service.attend(), name=traits.name)
        task.add_done_callback(self._on_unattended)
        instances = [self._start(service, number) for number in range(1, self._wanted[traits.name] + 1)]
        for instance in instances:
            await self._until_ready(instance)
        await service.provision()
        self._provisioned[traits.name].set()

    def _start(self, service: Service, number: int) -> Instance:
        instance = Instance(service, number, self._home / "logs", self._on_change)
        self._instances.append(instance)
        order = list(self._services.values())
        self._instances.sort(key=lambda one: (order.index(one.service), one.number))
        self._publish()
        self._tasks[instance] = asyncio.create_task(instance.run(), name=instance.name)
        return instance

    async def _until_ready(self, instance: Instance) -> None:
        task = self._tasks[instance]
        ready = asyncio.create_task(instance.ready.wait())
        try:
            await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if task.done() and not instance.ready.is_set():
            self._forget(instance)
            task.result()
            raise StackError(f"{instance.name} was stopped before it was ready")

    async def _until_healthy(self, name: str, path: str) -> None:
        """Waits for the first answer through the edge: only then is there an exchange to trade on."""
        deadline = time.monotonic() + HEALTH_TIMEOUT_S
        while not await answers(self._stack.edge_port, path):
            if time.monotonic() > deadline:
                logs = self._home / "logs"
                raise StackError(
                    f"all services run, but {self._stack.addresses['edge_url']}{path} does not answer 200 "
                    f"after {HEALTH_TIMEOUT_S:g} s; logs: {logs}/{name}-1.log and {logs}/envoy-access.log",
                )
            await asyncio.sleep(_PROBE_INTERVAL_S)

    async def _watch(self) -> None:
        """Bounds the logs until it is time to stop; the instances look after themselves."""
        while not self._stop.is_set():
            for log in (self._home / "logs").glob("*.log"):
                # Those two are kept by the services that write them, and no line of them may be lost.
                if log.name not in {AUDIT_LOG, SECURITY_LOG}:
                    await asyncio.to_thread(bound_log, log)
            try:
                async with asyncio.timeout(_LOG_CHECK_S):
                    await self._stop.wait()
            except TimeoutError:
                continue

    async def _remove(self, instances: list[Instance]) -> None:
        if not instances:
            return
        for instance in instances:
            self._instances.remove(instance)
        self._publish()
        await asyncio.sleep(ENDPOINT_SETTLE_S)
        await _stop_leader_last(instances)
        for instance in instances:
            await asyncio.gather(self._tasks.pop(instance), return_exceptions=True)

    async def _stop_all(self) -> None:
        for rank in sorted({one.service.traits.stop_rank for one in self._instances}):
            group = [one for one in self._instances if one.service.traits.stop_rank == rank]
            for service in {one.service.traits.name: one.service for one in group if one.pid}.values():
                await service.drain()
            await self._leave_alone(rank)
            await _stop_leader_last(group)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._save()

    async def _leave_alone(self, rank: int) -> None:
        """Ends what attends to services of this rank: from here on their deaths are meant."""
        tasks = [task for service, task in self._attending.items() if service.traits.stop_rank == rank]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_unattended(self, task: asyncio.Task[None]) -> None:
        """A service that nobody can look after any more is no state to run in."""
        if not task.cancelled() and task.exception() is not None:
            self._unattended = f"{task.get_name()} can be looked after no more: {task.exception()!r}"
            self.request_stop()

    def _publish(self) -> None:
        ports: defaultdict[str, list[int]] = defaultdict(list)
        for instance in self._instances:
            if instance in self._leaving:
                continue
            for upstream, port in instance.service.endpoints(instance.number).items():
                ports[upstream].append(port)
        self._stack.edge.publish(ports)

    def _on_change(self, instance: Instance) -> None:
        self._save()
        seconds = round(time.monotonic() - self._began, 3)
        event = {"event": "instance", "name": instance.name, "state": instance.state.value, "pid": instance.pid}
        self._report({**event, "seconds": seconds, "restarts": instance.restarts})

    def _forget(self, instance: Instance) -> None:
        self._instances.remove(instance)
        del self._tasks[instance]
        self._wanted[instance.service.traits.name] = max(1, instance.number - 1)
        self._publish()

    def _save(self) -> None:
        """Who runs, so that the next supervisor finds what a killed one left behind, and how many were wanted."""
        running = [
            {
                "name": one.name,
                "process": one.identity.to_json(),
                "signal": one.service.traits.stop_signal.name,
                "rank": one.service.traits.stop_rank,
            }
            for one in self._instances
            if one.identity is not None and one.state is not State.STOPPED
        ]
        write_private(self._home / STATE_FILE, json.dumps({"running": running, "wanted": self._wanted}, indent=1))

    def _service(self, name: str) -> Service:
        service = self._services.get(name)
        if service is None or not service.traits.numbered:
            names = ", ".join(name for name, one in self._services.items() if one.traits.numbered)
            raise StackError(f"{name} cannot be scaled; services that can: {names}")
        return service


def _bounded(count: int, traits: Traits) -> int:
    return min(max(count, traits.least_instances), traits.max_instances)


async def _stop_leader_last(instances: list[Instance]) -> None:
    """Whoever leads then hands over to one that stays, or ends its own work; not to one that is stopping as well."""
    roles = await asyncio.gather(*(_role(one) for one in instances))
    leaders = [one for one, role in zip(instances, roles, strict=True) if role == LEADER]
    await asyncio.gather(*(one.stop() for one in instances if one not in leaders))
    await asyncio.gather(*(one.stop() for one in leaders))


async def _role(instance: Instance) -> str:
    if instance.state is not State.READY:
        return instance.service.traits.role
    return await instance.service.role(instance.number)


def _leaves(group: BaseExceptionGroup[StackError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found

"""The watcher of switch files and environment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from exchange.trading.core.constants import SWITCH_ACCEPT_NEW_ORDERS, SWITCH_MAINTENANCE
from exchange.trading.switches import SwitchWatcher
from tests.integration.trading.engine_app import eventually

ACCEPT, MAINTENANCE = SWITCH_ACCEPT_NEW_ORDERS, SWITCH_MAINTENANCE


class Watched:
    """A watcher that polls fast, and what it has turned."""

    def __init__(self, folder: Path | None, environment: dict[int, bool] | None = None) -> None:
        self.turned: list[tuple[int, bool]] = []
        self.request_ids: list[str] = []
        self.failures = 0
        self.leads = True
        self._watcher = SwitchWatcher(folder, environment or {}, self._turn, self._begins)
        self._task: asyncio.Task[None] | None = None
        self._polls = 0
        self._real_read = self._watcher._read
        self._watcher._read = self._read  # type: ignore[method-assign]

    def _read(self, name: str) -> bool | None:
        self._polls += 1
        return self._real_read(name)

    async def _begins(self) -> bool:
        return self.leads

    async def _turn(self, switch: int, on: bool, request_id: str) -> None:  # noqa: FBT001 - the watcher's form
        self.request_ids.append(request_id)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the journal is away")
        self.turned.append((switch, on))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Run it until the condition holds, and both files have been read twice more."""
        if self._task is None:
            self._task = asyncio.create_task(self._watcher.run())
        await eventually(condition, "the switches are turned")
        enough = self._polls + 4
        await eventually(lambda: self._polls >= enough, "the files are read again")

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.trading.switches.POLL_S", 0.001)


@pytest.mark.parametrize(
    ("text", "on"),
    [("true", True), ("1\n", True), (" YES ", True), ("on", True), ("false", False), ("0", False), ("Off\n", False)],
)
async def test_a_file_says_on_or_off_in_every_usual_way(tmp_path: Path, text: str, on: bool) -> None:  # noqa: FBT001
    (tmp_path / "MAINTENANCE_MODE").write_text(text)
    watched = Watched(tmp_path)
    await watched.until(lambda: bool(watched.turned))
    await watched.stop()

    assert watched.turned == [(MAINTENANCE, on)]


async def test_a_file_that_says_nothing_or_nonsense_turns_nothing(tmp_path: Path) -> None:
    (tmp_path / "MAINTENANCE_MODE").write_text("perhaps")
    (tmp_path / "ACCEPT_NEW_ORDERS").write_text("")
    watched = Watched(tmp_path, {MAINTENANCE: False})
    await watched.until(lambda: bool(watched.turned))
    await watched.stop()

    assert watched.turned == [(MAINTENANCE, False)]


async def test_a_file_turns_again_only_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "ACCEPT_NEW_ORDERS"
    file.write_text("false")
    watched = Watched(tmp_path)
    await watched.until(lambda: len(watched.turned) == 1)
    file.write_text("true")
    await watched.until(lambda: len(watched.turned) == 2)
    file.unlink()
    await watched.until(lambda: True)
    file.write_text("true")
    await watched.until(lambda: True)
    await watched.stop()

    assert watched.turned == [(ACCEPT, False), (ACCEPT, True)]


async def test_what_could_not_be_turned_is_tried_again(tmp_path: Path) -> None:
    watched = Watched(None, {ACCEPT: False, MAINTENANCE: True})
    watched.failures = 3
    await watched.until(lambda: len(watched.turned) == 2)
    await watched.stop()

    assert sorted(watched.turned) == [(ACCEPT, False), (MAINTENANCE, True)]


async def test_a_file_wins_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "MAINTENANCE_MODE").write_text("true")
    watched = Watched(tmp_path, {MAINTENANCE: False})
    await watched.until(lambda: bool(watched.turned))
    await watched.stop()

    assert watched.turned == [(MAINTENANCE, True)]


async def test_an_instance_that_joins_others_undoes_nothing_and_sees_the_next_change(tmp_path: Path) -> None:
    (tmp_path / "ACCEPT_NEW_ORDERS").write_text("true")
    watched = Watched(tmp_path, {MAINTENANCE: True})
    watched.leads = False
    await watched.until(lambda: True)
    assert watched.turned == []

    (tmp_path / "ACCEPT_NEW_ORDERS").write_text("false")
    await watched.until(lambda: bool(watched.turned))
    assert watched.turned == [(ACCEPT, False)]
    await watched.stop()


async def test_all_instances_ask_for_a_change_under_one_id(tmp_path: Path) -> None:
    watchers = [Watched(tmp_path), Watched(tmp_path)]
    for watched in watchers:
        await watched.until(lambda: True)
    ids: list[str] = []
    for text in ("false", "true"):
        (tmp_path / "ACCEPT_NEW_ORDERS").write_text(text)
        for watched in watchers:
            await watched.until(lambda watched=watched: bool(watched.request_ids))  # type: ignore[misc]
        (one,), (other,) = (watched.request_ids for watched in watchers)
        assert one == other
        ids.append(one)
        for watched in watchers:
            watched.request_ids.clear()
    assert ids[0] != ids[1], "another change is another command"
    for watched in watchers:
        await watched.stop()

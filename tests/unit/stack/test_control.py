"""The lock that says whether a supervisor lives, and the socket that it listens on."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from exchange.stack.control import NotRunning, is_running, request, serve, take_lock
from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path


async def handle(found: dict[str, Any]) -> object:
    if found["command"] == "refuse":
        raise StackError("not today")
    return found


def test_without_a_supervisor_a_request_says_so(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    with pytest.raises(NotRunning, match="pincex up"):
        request(tmp_path, "status")


def test_the_lock_is_held_by_one_and_free_when_it_is_closed(tmp_path: Path) -> None:
    lock = take_lock(tmp_path)

    assert lock is not None
    assert take_lock(tmp_path) is None
    assert is_running(tmp_path)
    os.close(lock)
    assert not is_running(tmp_path)


async def test_results_and_refusals_come_back_even_from_a_folder_with_a_long_path(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 40)
    home.mkdir()
    lock = take_lock(home)
    assert lock is not None
    server = await serve(home, handle)
    try:
        answer = await asyncio.to_thread(request, home, "scale", count=3)
        assert answer == {"command": "scale", "count": 3}
        with pytest.raises(StackError, match="not today"):
            await asyncio.to_thread(request, home, "refuse")
        assert (home / "control.sock").stat().st_mode & 0o777 == 0o600
    finally:
        server.close()
        await server.wait_closed()
        os.close(lock)

"""The task that follows: it goes on whatever happens, says so, and lets nobody in meanwhile."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from exchange.runtime.config import Environment, RuntimeConfig, Secret
from exchange.runtime.identity import identity as module
from exchange.runtime.identity.identity import Identity

CONFIG = RuntimeConfig.read(Environment({"PINCEX_PROFILE": "production", "PINCEX_INSTANCE": "i-1"}), "service")


@pytest.mark.parametrize("error", [OSError("away"), RuntimeError("a defect")])
async def test_it_follows_again_after_any_failure(monkeypatch, error):
    monkeypatch.setattr(module, "POLL_S", 0.001)
    identity = Identity(CONFIG, database_url=Secret("postgresql://u:secret@127.0.0.1:1/x"), service_secret=None)
    assert identity.revocations is not None
    followed = asyncio.Event()
    failures = 3

    async def poll() -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise error
        followed.set()

    monkeypatch.setattr(identity.revocations, "poll", poll)
    with structlog.testing.capture_logs() as lines:
        task = asyncio.create_task(identity.run())
        await asyncio.wait_for(followed.wait(), 5)
    # Once, not each time; and what it connects with is in no line.
    assert [line["event"] for line in lines].count("revocations cannot be followed") == 1
    assert "secret" not in str(lines)
    assert not identity.revocations.is_current()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_a_database_there_is_nothing_to_follow():
    identity = Identity(CONFIG, database_url=None, service_secret=None)
    await asyncio.wait_for(identity.run(), 1)
    assert identity.revocations is None

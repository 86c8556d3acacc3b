"""A stack whose services are stand-ins: everything else is real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stack_fixture import ExchangeStack, StackFolder, running_stack, stack_folder, stop, temporary_home

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def fake_folder(home: Path) -> StackFolder:
    """A folder whose services are fake; several engines may run."""
    return stack_folder(
        home,
        PINCEX_ENGINE_MODULE="fake_engine",
        PINCEX_AUTH_MODULE="fake_engine",
        PINCEX_ADMIN_MODULE="fake_engine",
        PINCEX_SETTLEMENT_MODULE="fake_engine",
        PINCEX_WITHOUT="wallet,market-data,websocket,market-maker",
        PINCEX_ENGINE_MAX_INSTANCES="3",
        PYTHONPATH=str(HERE),
    )


@pytest.fixture
def folder() -> Iterator[StackFolder]:
    """Nothing runs in it yet; whatever a test leaves running is ended."""
    with temporary_home() as home:
        found = fake_folder(home)
        try:
            yield found
        finally:
            stop(found)


@pytest.fixture(scope="module")
def fake_stack() -> Iterator[ExchangeStack]:
    """One running stack for the tests of a module."""
    with temporary_home() as home, running_stack(fake_folder(home)) as stack:
        yield stack

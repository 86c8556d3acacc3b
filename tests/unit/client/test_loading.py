"""What is loaded when: who runs an exchange pays for nothing of the SDK."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import typer

import pincex_client
from pincex_client.cli.stack import STACK_COMMANDS, build_stack_app

if TYPE_CHECKING:
    from pathlib import Path

STATUS = """
import sys
from pincex_client.cli import main

status = main(["status"])
loaded = {"grpc", "google.protobuf", "cryptography", "asyncpg"} & set(sys.modules)
assert not loaded, loaded
sys.exit(status)
"""


@pytest.mark.parametrize("name", pincex_client.__all__)
def test_each_name_of_the_sdk_is_there(name: str) -> None:
    assert getattr(pincex_client, name).__name__ in {name, f"pincex_client.{name}"}
    assert name in dir(pincex_client)


def test_a_name_that_the_sdk_does_not_have_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        getattr(pincex_client, "Nothing")  # noqa: B009 - as `from pincex_client import Nothing` asks


def test_commands_that_run_an_exchange_are_known_without_loading_the_others() -> None:
    app = build_stack_app()
    assert app is not None
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    assert set(group.commands) == STACK_COMMANDS


def test_a_command_that_runs_an_exchange_loads_nothing_of_the_sdk(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, "-c", STATUS], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("error: the exchange is not running")

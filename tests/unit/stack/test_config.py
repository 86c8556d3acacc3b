"""The stack's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exchange.stack.config import find_home, load_config
from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_environment_wins_over_dotenv_and_dotenv_over_the_defaults(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PINCEX_EDGE_PORT=1111\nPINCEX_OPS_PORT=2222\n")

    config = load_config({"PINCEX_EDGE_PORT": "3333"}, tmp_path)

    assert (config.edge_port.port, config.ops_port.port, config.debug_port.port) == (3333, 2222, 6060)


@pytest.mark.parametrize("text", ["-1", "65536", "http", "8080.0", "٨٠٨٠"])
def test_a_port_that_is_none_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(StackError, match="PINCEX_EDGE_PORT must be a whole number from 0 to 65535"):
        load_config({"PINCEX_EDGE_PORT": text}, tmp_path)


def test_a_line_of_dotenv_that_is_no_setting_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PINCEX_EDGE_PORT=8080\nnonsense\n")

    with pytest.raises(StackError, match=r"\.env:2"):
        load_config({}, tmp_path)


def test_the_home_of_a_folder_above_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / ".pincex").mkdir()
    below = tmp_path / "docs" / "deep"
    below.mkdir(parents=True)

    assert find_home({}, below) == tmp_path / ".pincex"


def test_a_first_home_is_made_here_and_the_variable_decides_before_all(tmp_path: Path) -> None:
    assert find_home({}, tmp_path) == tmp_path / ".pincex"
    assert find_home({"PINCEX_HOME": "/elsewhere"}, tmp_path).as_posix() == "/elsewhere"


def test_an_external_database_is_its_own_admin_unless_another_is_given(tmp_path: Path) -> None:
    one = load_config({"DATABASE_URL": "postgresql://a"}, tmp_path)
    two = load_config({"DATABASE_URL": "postgresql://a", "PINCEX_ADMIN_DATABASE_URL": "postgresql://b"}, tmp_path)

    assert (one.admin_database_url, two.admin_database_url) == ("postgresql://a", "postgresql://b")


def test_dotenv_is_read_again_and_the_environment_still_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PINCEX_MAX_RULES=1\nLOG_LEVEL=DEBUG\n")
    config = load_config({"LOG_LEVEL": "ERROR"}, tmp_path)
    assert config.environment["PINCEX_MAX_RULES"] == "1"

    (tmp_path / ".env").write_text("LOG_LEVEL=DEBUG\n")

    again = config.reread()
    assert ("PINCEX_MAX_RULES" in again.environment, again.log_level) == (False, "ERROR")

"""Files of the data folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.stack.files import bound_log, read_json, secret, tail, write_private

if TYPE_CHECKING:
    from pathlib import Path


def test_a_log_beyond_its_limit_moves_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with log.open("a") as writer:
        writer.write("x" * 100)
        writer.flush()
        bound_log(log, limit_bytes=100)
        writer.write("after")
        writer.flush()

    assert log.read_text() == "after"
    assert (tmp_path / "engine.log.1").read_text() == "x" * 100


def test_a_log_within_its_limit_stays(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("short")
    bound_log(log, limit_bytes=100)

    assert log.read_text() == "short"


def test_a_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    first = secret(tmp_path / "secrets", "jwt")

    assert len(first) >= 32
    assert secret(tmp_path / "secrets", "jwt") == first
    assert secret(tmp_path / "secrets", "other") != first
    assert (tmp_path / "secrets" / "jwt").stat().st_mode & 0o777 == 0o600


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("1\n2\n3\n")

    assert tail(tmp_path / "a.log", 2) == ["2", "3"]
    assert tail(tmp_path / "a.log", 0) == []
    assert tail(tmp_path / "none.log", 5) == []


def test_a_damaged_state_file_counts_as_empty(tmp_path: Path) -> None:
    write_private(tmp_path / "state.json", "[")

    assert read_json(tmp_path / "state.json") == {}
    assert read_json(tmp_path / "none.json") == {}

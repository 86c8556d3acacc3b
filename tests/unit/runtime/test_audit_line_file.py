"""Files of lines: rotation, several writers, and what others do to the files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from exchange.runtime.audit.line_file import LineFile

WRITERS, LINES = 4, 1_500
PROGRAM = """
import sys
from pathlib import Path
from exchange.runtime.audit.line_file import LineFile
file = LineFile(Path(sys.argv[1]), max_bytes=20_000, kept=1000)
for number in range(int(sys.argv[3])):
    file.write(f"{sys.argv[2]}-{number} {'x' * 40} end\\n".encode())
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "new" / "audit.log", max_bytes=10)
    file.write(b"0123456\n")
    file.write(b"7\n")
    file.write(b"8\n")
    for path in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) & 0o007 == 0


def test_a_full_file_is_rotated_and_only_so_many_are_kept(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a.log", max_bytes=10, kept=2)
    for number in range(5):
        file.write(f"line {number}\n".encode())
    assert names(tmp_path) == ["a.log", "a.log.1", "a.log.2", "a.log.lock"]
    assert [(tmp_path / name).read_text() for name in ("a.log.2", "a.log.1", "a.log")] == [
        "line 2\n",
        "line 3\n",
        "line 4\n",
    ]


def test_a_line_larger_than_a_file_is_written_all_the_same(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a.log", max_bytes=10)
    file.write(b"x" * 30 + b"\n")
    assert (tmp_path / "a.log").stat().st_size == 31


def test_lines_go_on_in_a_new_file_after_somebody_else_rotated(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a.log")
    file.write(b"one\n")
    (tmp_path / "a.log").rename(tmp_path / "a.log-20261125")
    file.write(b"two\n")
    (tmp_path / "a.log").unlink()
    (tmp_path / "a.log").touch(0o600)
    file.write(b"three\n")
    assert (tmp_path / "a.log-20261125").read_text() == "one\n"
    assert (tmp_path / "a.log").read_text() == "three\n"


def test_lines_of_several_processes_are_whole_and_none_is_lost_while_files_rotate(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    writers = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), str(number), str(LINES)])
        for number in range(WRITERS)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * WRITERS
    files = [one for one in tmp_path.iterdir() if not one.name.endswith(".lock")]
    assert len(files) > 10
    lines = [line for one in files for line in one.read_text().splitlines()]
    assert all(line.endswith(f"{'x' * 40} end") for line in lines)
    assert sorted(line.split()[0] for line in lines) == sorted(
        f"{writer}-{number}" for writer in range(WRITERS) for number in range(LINES)
    )


def test_a_line_that_was_cut_is_told_and_the_next_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    file = LineFile(tmp_path / "a.log")
    file.write(b"first\n")
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(OSError, match="in part"):
        file.write(b"second\n")
    monkeypatch.undo()
    file.write(b"third\n")
    assert (tmp_path / "a.log").read_text() == "first\nsec\nthird\n"


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "a.log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=r"a\.log"):
        LineFile(tmp_path / "a.log").write(b"line\n")
    assert (tmp_path / "victim").read_text() == "untouched"

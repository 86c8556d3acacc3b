"""A file of lines that several processes append to, rotated by size, and by others such as logrotate."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

AUDIT_LOG: Final = "audit.log"
SECURITY_LOG: Final = "security.log"
"""What is written so, in each service's folder of logs."""
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""A file that would grow beyond it is rotated."""
KEPT_FILES: Final = 8
"""Rotated files that stay, `.1` the newest; older ones are removed."""

_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o750


class LineFile:
    """Appends whole lines to `path`; one for each file and process.

    A line is one write() to a descriptor opened with O_APPEND, so lines of several processes do not mix. Before each,
    the descriptor is compared with what now stands at the path: whoever has rotated it, the next line goes to the new
    file. Rotation takes a lock beside the file and looks again under it, so of many processes one rotates. A line that is
    on its way meanwhile ends up in the file that has just become `.1`.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES, kept: int = KEPT_FILES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._descriptor = -1
        self._torn = False

    def write(self, line: bytes) -> None:
        """Append a line, its end included. Raises OSError where it cannot, a full disk above all."""
        size = self._open()
        if size and size + len(line) > self._max_bytes:
            self._rotate(len(line))
        data = b"\n" + line if self._torn else line
        self._torn = os.write(self._descriptor, data) != len(data)
        if self._torn:
            raise OSError(f"{self.path}: a line was written in part")

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        """Make the descriptor that of the file at the path, and return its size."""
        if self._descriptor >= 0:
            ours = os.fstat(self._descriptor)
            with contextlib.suppress(FileNotFoundError):
                present = self.path.stat()
                if (present.st_dev, present.st_ino) == (ours.st_dev, ours.st_ino):
                    return present.st_size
            self.close()
        self.path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.path, flags, _FILE_MODE)
        return os.fstat(self._descriptor).st_size

    def _rotate(self, coming: int) -> None:
        lock = os.open(self._beside("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
        try:
            # Held for a few renames: waiting for it is no longer than a slow write.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._open() + coming <= self._max_bytes:
                # Another process was faster.
                return
            for number in range(self._kept - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    self._beside(number).replace(self._beside(number + 1))
            self.path.replace(self._beside(1))
            self._open()
        finally:
            os.close(lock)

    def _beside(self, ending: object) -> Path:
        return self.path.with_name(f"{self.path.name}.{ending}")

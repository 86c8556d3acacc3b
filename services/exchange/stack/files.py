"""Files of the data folder: written whole or not at all, readable by their owner only."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from pathlib import Path

LOG_LIMIT_BYTES = 64 << 20


def write_private(file: Path, text: str, *, durable: bool = False) -> None:
    """Replaces the file with mode 0600; a reader sees the old text or the new, never a part.

    A `durable` one is on the disk when this returns, under its name.
    """
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    with os.fdopen(handle, "w") as opened:
        opened.write(text)
        if durable:
            opened.flush()
            os.fsync(opened.fileno())
    Path(temporary).replace(file)
    if durable:
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def secret(folder: Path, name: str) -> str:
    """A random secret of 192 bits in URL-safe characters, made at the first call and kept in `folder`/`name`."""
    file = folder / name
    if not file.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, secrets.token_urlsafe(24))
    return file.read_text().strip()


def read_json(file: Path) -> dict[str, object]:
    """The object in the file; an absent or unreadable one is empty."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def tail(file: Path, lines: int) -> list[str]:
    """The last lines of a log, read from its last 256 KiB."""
    if not file.is_file():
        return []
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - (256 << 10)))
        text = opened.read().decode(errors="replace")
    return text.splitlines()[-lines:] if lines else []


def bound_log(file: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
    """Keeps a growing log at twice the limit at most: what is there moves to `.1`, and its writer goes on.

    The writer has the file open for appending, so cutting it to nothing is safe; lines written between the copy and the
    cut are lost, which a log of this size can bear.
    """
    if not file.is_file() or file.stat().st_size < limit_bytes:
        return
    with file.open("rb") as source, file.with_name(f"{file.name}.1").open("wb") as target:
        while chunk := source.read(1 << 20):
            target.write(chunk)
    os.truncate(file, 0)


def make_home(home: Path) -> None:
    """The data folder. As root others may pass through, for PostgreSQL then runs as another user; none may look."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711 if os.geteuid() == 0 else 0o700)
    (home / "logs").mkdir(mode=0o700, exist_ok=True)
    (home / "envoy").mkdir(mode=0o700, exist_ok=True)
    (home / "secrets").mkdir(mode=0o700, exist_ok=True)

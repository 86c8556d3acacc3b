"""Write requirements/*.txt: every dependency pinned to one version, with the hashes of its files.

    python -m scripts.lock              take up what pyproject.toml added or dropped, keep other versions
    python -m scripts.lock --upgrade    move everything to the newest versions that pyproject.toml allows

The files name no package index: the installing machine's own settings say where packages come from.
"""

import argparse
import sys
from typing import Final

from scripts.paths import ROOT, ToolError, run_tool

# What runs in a container, and what a developer and CI install.
_LOCKS: Final = {"runtime.txt": (), "dev.txt": ("--extra", "dev")}
_HEADER: Final = "# Written by scripts/lock.py from pyproject.toml (`make lock`). DO NOT EDIT!\n"


def lock(name: str, extras: tuple[str, ...], *, upgrade: bool) -> None:
    """Resolve one lock file; raises ToolError where no set of versions fits."""
    target = ROOT / "requirements" / name
    run_tool(
        [
            *("uv", "pip", "compile", "pyproject.toml", *extras),
            # One file for each Python from 3.11 on and each platform.
            *("--universal", "--python-version", "3.11"),
            *("--generate-hashes", "--no-header", "--no-emit-index-url", "--no-emit-find-links"),
            # `coverage[toml]==...`: pip takes a newer release for an extra that is not pinned itself, and then refuses it.
            "--no-strip-extras",
            *("--quiet", "--output-file", target),
            *(("--upgrade",) if upgrade else ()),
        ]
    )
    target.write_text(_HEADER + target.read_text(encoding="utf-8"), encoding="utf-8")


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--upgrade", action="store_true", help="move to the newest versions")
    upgrade = parser.parse_args().upgrade
    try:
        for name, extras in _LOCKS.items():
            lock(name, extras, upgrade=upgrade)
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

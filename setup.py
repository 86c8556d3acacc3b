"""Build the optional compiled core; everything else about the package is in pyproject.toml.

The modules of `exchange.trading.core` run interpreted or compiled by mypyc, same sources, same results.
A machine without a C compiler, or a core that mypyc refuses today, still gets a working install: the
build says so and the interpreted modules run. `PINCEX_REQUIRE_COMPILED=1` (CI) turns that into an error;
`PINCEX_SKIP_COMPILE=1` leaves the extension out (the editable install, which `make install` compiles after).
"""

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SERVICES = ROOT / "services"
# The loader's own decision is of no interest here; without this it may warn about the build to be replaced.
os.environ["PINCEX_PURE"] = "1"
sys.path.insert(0, str(SERVICES))
from exchange.trading import core_loader  # noqa: E402 - lies under the path above

REQUIRED = os.environ.get("PINCEX_REQUIRE_COMPILED") == "1"
SKIPPED = os.environ.get("PINCEX_SKIP_COMPILE") == "1"


def core_extensions() -> list[Any]:  # two Extension classes, one the other's parent, meet in mypyc's list
    """Return the extensions of the core, none where it is skipped, absent or does not compile."""
    sources = [path.relative_to(ROOT).as_posix() for path in core_loader.compiled_sources(core_loader.CORE_DIR)]
    if SKIPPED or not sources:
        return []
    os.environ["MYPYPATH"] = str(SERVICES)
    try:
        from mypyc.build import mypycify  # noqa: PLC0415 - absent where only the interpreted core is wanted

        # The dotted group name puts the shared library inside the package, where the editable install
        # finds it. No -Werror, no debug info: this is a user's build.
        extensions = mypycify(
            ["--config-file=", "--explicit-package-bases", "--namespace-packages", *sources],
            group_name=core_loader.GROUP,
            opt_level="3",
            debug_level="0",
            target_dir="build/mypyc",
        )
    except (ImportError, SystemExit) as error:
        if REQUIRED:
            raise
        print(f"the core stays interpreted: mypyc did not translate it ({error!r})", file=sys.stderr)
        return []
    for extension in extensions:
        extension.optional = not REQUIRED
    return extensions


class BuildCore(build_ext):
    """build_ext that records which sources the compiled core was made from.

    The stamp goes first and comes back last, so a process that starts during the build runs interpreted.
    """

    def run(self) -> None:
        """Compile, then write the stamp if every module was really built."""
        if not self.inplace:
            super().run()
            self._stamp(Path(self.build_lib) / "exchange" / "trading" / "core")
            return
        core_loader.remove_build(core_loader.CORE_DIR)
        super().run()
        self._stamp(core_loader.CORE_DIR)

    def _stamp(self, target: Path) -> None:
        if self.extensions and core_loader.write_stamp(core_loader.CORE_DIR, target):
            print(f"core compiled: {len(self.extensions)} extensions")
        elif REQUIRED and not SKIPPED and core_loader.compiled_sources(core_loader.CORE_DIR):
            raise SystemExit("PINCEX_REQUIRE_COMPILED=1, but the core was not compiled")


setup(ext_modules=core_extensions(), cmdclass={"build_ext": BuildCore})

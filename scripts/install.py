"""Install what requirements/dev.txt pins into this virtual environment, each file by its hash: `python -m scripts.install`.

By uv, which takes less than half of pip's time and both cores; itself it comes by pip. It reads none of pip's settings, by which a
machine says where its packages come from, so it is handed them. What uv cannot do in spite of that, pip does.

Runs before anything is installed: it needs the standard library only.
"""

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from scripts.paths import ROOT

REQUIREMENTS: Final = ROOT / "requirements" / "dev.txt"
_PIP: Final = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
_PIP_INSTALL: Final = (*_PIP, "install", "--root-user-action=ignore", "--require-hashes", "-r")
# It holds the same files as the types-grpcio packages. pip writes it after them, uv writes all at once: so here it is written again.
_LAST: Final = "grpc-stubs"
# What pip calls a setting, and uv's variable for it. Values of several parts are separated by blanks, but for the last.
_SETTINGS: Final = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "find-links": "UV_FIND_LINKS",
}
# As pip reads them, the later before the earlier.
_SOURCES: Final = ("global", "install", ":env:")

Run = Callable[[Sequence[str], Mapping[str, str]], int]


def requirement(name: str, text: str) -> str:
    """The lines that pin one package in a requirements file. Raises LookupError."""
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith(f"{name}==")), None)
    if first is None:
        raise LookupError(f"{name} is not pinned")
    last = first
    while lines[last].endswith("\\"):
        last += 1
    return "\n".join(lines[first : last + 1]) + "\n"


def settings_for_uv(listed: str) -> dict[str, str]:
    """The variables of uv for what `pip config list` prints."""
    found: dict[str, dict[str, str]] = {source: {} for source in _SOURCES}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        source, _, setting = name.rpartition(".")
        if source in found and setting in _SETTINGS:
            found[source][_SETTINGS[setting]] = str(ast.literal_eval(value))
    merged = {variable: value for source in _SOURCES for variable, value in found[source].items()}
    if "UV_FIND_LINKS" in merged:
        merged["UV_FIND_LINKS"] = ",".join(merged["UV_FIND_LINKS"].split())
    # What is installed goes by its hash, wherever it comes from: as pip, take whichever place has it.
    return {**merged, "UV_INDEX_STRATEGY": "unsafe-best-match"}


def install(run: Run, pip_settings: str, environment: Mapping[str, str]) -> int:
    """Install everything; return the exit status of what did it, or of pip, which was tried last."""
    pinned = REQUIREMENTS.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        first, last = Path(folder) / "uv.txt", Path(folder) / f"{_LAST}.txt"
        first.write_text(requirement("uv", pinned), encoding="utf-8")
        last.write_text(requirement(_LAST, pinned), encoding="utf-8")
        if run([*_PIP_INSTALL, str(first)], environment) == 0:
            uv = [
                sys.executable,
                "-m",
                "uv",
                "pip",
                "install",
                "--quiet",
                "--python",
                sys.executable,
                "--require-hashes",
            ]
            environment_of_uv = {**settings_for_uv(pip_settings), **environment}
            if (
                run([*uv, "--compile-bytecode", "-r", str(REQUIREMENTS)], environment_of_uv) == 0
                and run([*uv, "--reinstall", "--no-deps", "-r", str(last)], environment_of_uv) == 0
            ):
                return 0
            print("uv could not install that: pip does, which takes longer", file=sys.stderr)
    return run([*_PIP_INSTALL, str(REQUIREMENTS)], environment)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - no shell; our own arguments


def main() -> int:
    """Return the exit status."""
    listed = subprocess.run([*_PIP, "config", "list"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    return install(_run, listed, os.environ)


if __name__ == "__main__":
    raise SystemExit(main())

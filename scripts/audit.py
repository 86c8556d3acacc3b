"""Look the locked versions up among the known vulnerabilities, where that list can be reached.

    python -m scripts.audit

pip-audit for Python's lock, npm audit for each folder with a package.json. Exit 1 if a locked version is vulnerable. A
machine without a way to a list prints 'not run' and goes on: a build must not depend on a network it does not need. A
mirror that serves packages without their vulnerabilities makes pip-audit skip them all and succeed; that counts as not run
too.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.paths import ROOT

_TIMEOUT_S: Final = 45
# Folders whose package.json are not ours.
_FOREIGN: Final = frozenset({"node_modules", ".venv", "build", ".git"})


def verdict(report: str) -> tuple[int, str]:
    """Return exit code and message for the JSON report of pip-audit. Raises ValueError or KeyError where it is none."""
    dependencies = json.loads(report)["dependencies"]
    audited = [dependency for dependency in dependencies if "vulns" in dependency]
    if not audited:
        return 0, "pip-audit: not run (its source knows none of the packages)"
    vulnerable = [
        f"  {found['name']} {found['version']}: {', '.join(vuln['id'] for vuln in found['vulns'])}"
        for found in audited
        if found["vulns"]
    ]
    if vulnerable:
        return 1, "pip-audit: known vulnerabilities\n" + "\n".join(vulnerable)
    return 0, f"pip-audit: no known vulnerability in {len(audited)} of {len(dependencies)} packages"


def npm_verdict(report: str) -> tuple[int, str]:
    """Return exit code and message for the JSON report of npm audit. Raises ValueError or KeyError where it is none."""
    found = json.loads(report)
    if "error" in found or "vulnerabilities" not in found:
        error = found.get("error") or {}
        return 0, f"npm audit: not run ({error.get('summary') or found.get('message') or 'no report'})"
    vulnerable = [f"  {name}: {one['severity']}" for name, one in sorted(found["vulnerabilities"].items())]
    if vulnerable:
        return 1, "npm audit: known vulnerabilities\n" + "\n".join(vulnerable)
    return 0, f"npm audit: no known vulnerability in {found['metadata']['dependencies']['total']} packages"


def npm_projects(root: Path) -> list[Path]:
    """The folders with a package.json of ours."""
    found = []
    for folder, inside, files in os.walk(root):
        inside[:] = [name for name in inside if name not in _FOREIGN]
        if "package.json" in files:
            found.append(Path(folder))
    return sorted(found)


def main() -> int:
    """Run both; return the exit code."""
    code = _audit_python()
    projects = npm_projects(ROOT)
    if not projects:
        print("npm audit: nothing to look up (there is no package.json)")
    for project in projects:
        code = max(code, _audit_npm(project))
    return code


def _audit_python() -> int:
    command = [
        *(str(Path(sys.executable).parent / "pip-audit"), "--requirement", "requirements/dev.txt"),
        *("--disable-pip", "--require-hashes", "--progress-spinner", "off", "--timeout", "5"),
        *("--format", "json"),
    ]
    done = _run(command, ROOT)
    if isinstance(done, str):
        print(f"pip-audit: not run ({done})")
        return 0
    try:
        code, message = verdict(done.stdout)
    except (ValueError, KeyError):
        # No report at all: it could not ask. Its last line says why.
        code, message = 0, f"pip-audit: not run ({_last_line(done.stderr)})"
    print(message)
    return code


def _audit_npm(project: Path) -> int:
    where = project.relative_to(ROOT)
    if not (project / "package-lock.json").is_file():
        print(f"npm audit: {where} has no package-lock.json, so nothing says which versions are meant")
        return 1
    done = _run(["npm", "audit", "--json", "--package-lock-only"], project)
    if isinstance(done, str):
        print(f"npm audit: not run ({done})")
        return 0
    try:
        code, message = npm_verdict(done.stdout)
    except (ValueError, KeyError):
        code, message = 0, f"npm audit: not run ({_last_line(done.stderr)})"
    print(f"{message} ({where})")
    return code


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str] | str:
    """What it answered, or why it did not."""
    try:
        return subprocess.run(  # noqa: S603 - no shell; the arguments are our own
            command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "its source did not answer in time"
    except FileNotFoundError:
        return f"{command[0]} is not installed"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]


if __name__ == "__main__":
    raise SystemExit(main())

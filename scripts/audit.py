"""Look the locked versions up among the known vulnerabilities, where that list can be reached.

    python -m scripts.audit

Exit 1 if a locked version is vulnerable. A machine without a way to the list prints 'not run' and goes
on: a build must not depend on a network it does not need. A mirror that serves packages without their
vulnerabilities makes pip-audit skip them all and succeed; that counts as not run too.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from scripts.paths import ROOT

_TIMEOUT_S: Final = 45


def verdict(report: str) -> tuple[int, str]:
    """Return exit code and message for the JSON report of pip-audit."""
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


def main() -> int:
    """Run pip-audit over the lock; return the exit code."""
    command = [
        *(str(Path(sys.executable).parent / "pip-audit"), "--requirement", "requirements/dev.txt"),
        *("--disable-pip", "--require-hashes", "--progress-spinner", "off", "--timeout", "5"),
        *("--format", "json"),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - no shell; the arguments are our own
            command, cwd=ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        print("pip-audit: not run (its source did not answer in time)")
        return 0
    try:
        code, message = verdict(done.stdout)
    except (ValueError, KeyError):
        # No report at all: it could not ask. Its last line says why.
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        code, message = 0, f"pip-audit: not run ({reason})"
    print(message)
    return code


if __name__ == "__main__":
    raise SystemExit(main())

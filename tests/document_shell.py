"""Somebody who types the commands of a document, on an exchange that listens on other ports than the document's."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from tests.unit.docs.examples import missing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.stack_fixture import StackFolder
    from tests.unit.docs.examples import Example

DEADLINE_S = 120.0
_ADDRESSES = {
    "8080": "edge_url",
    "8081": "ops_url",
    "6060": "debug_url",
    "9901": "envoy_admin_url",
    "8443": "tls_url",
    "8444": "mtls_url",
}


class DocumentShell:
    """Runs examples in bash, in a folder, with the folder's environment and `variables`."""

    def __init__(self, folder: StackFolder, cwd: Path, variables: Mapping[str, str]) -> None:
        """The exchange must be up: its ports are asked for once, and are kept by its data folder."""
        self._cwd = cwd
        self._environment = {**folder.environment, **variables, "COLUMNS": "120"}
        status = folder.status()
        self._ports = {
            port: str(status[name]).rpartition(":")[2] for port, name in _ADDRESSES.items() if name in status
        }

    def here(self, text: str) -> str:
        """A text of the document with what this exchange has instead."""
        return re.sub(r"(localhost|127\.0\.0\.1):(\d{4})\b", lambda m: f"{m[1]}:{self._ports.get(m[2], m[2])}", text)

    def learn(self, printed: str) -> None:
        """What a command has printed, before it is compared with the document."""

    def type(self, example: Example) -> str:
        """Run an example and answer what it printed; fails where it fails, or does not print what the document says."""
        command = ["bash", "-euo", "pipefail", "-c", self.here(example.script)]
        if example.seconds:
            command = ["timeout", str(example.seconds), *command]
        done = subprocess.run(
            command,
            cwd=self._cwd,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        expected_status = 124 if example.seconds else 0
        assert done.returncode == expected_status, f"{example.name}: {done.stdout}{done.stderr}"
        self.learn(done.stdout)
        lacking = missing(tuple(self.here(piece) for piece in example.output), done.stdout)
        assert lacking is None, f"{example.name}: {lacking!r} is not in:\n{done.stdout}"
        return done.stdout

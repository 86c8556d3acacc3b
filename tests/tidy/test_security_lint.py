"""What `make lint` finds of security: ruff's S rules where we have code, and known vulnerabilities of what we use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import audit

PLANTED = """\"\"\"Planted.\"\"\"

import hashlib
import subprocess
import tempfile


def planted(name: str) -> str:
    \"\"\"Do what nobody should.\"\"\"
    subprocess.run(name, shell=True, check=True)
    hashlib.md5(name.encode())
    eval(name)
    tempfile.mktemp()
    password = "hunter2hunter2"
    return f"SELECT * FROM users WHERE name = '{name}'" + password
"""
FOUND = {"S602", "S324", "S307", "S306", "S105", "S608"}


@pytest.mark.parametrize(
    "file",
    [
        "services/exchange/auth/x.py",
        "clients/python/pincex_client/x.py",
        "scripts/x.py",
        "services/exchange/stack/x.py",
    ],
)
def test_the_security_rules_are_on(file: str, repository: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("ruff"), "check", "--output-format", "json", "--stdin-filename", file, "-"],
        cwd=repository,
        input=PLANTED,
        capture_output=True,
        text=True,
        check=False,
    )
    assert {one["code"] for one in json.loads(done.stdout)} >= FOUND


def test_a_vulnerable_python_package_fails_and_a_source_that_knows_nothing_did_not_run() -> None:
    def report(*packages: dict[str, Any]) -> str:
        return json.dumps({"dependencies": packages})

    sound: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
    bad = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1"}]}
    skipped = {"name": "c", "skip_reason": "unknown"}
    assert audit.verdict(report(sound, skipped)) == (0, "pip-audit: no known vulnerability in 1 of 2 packages")
    assert audit.verdict(report(sound, bad)) == (1, "pip-audit: known vulnerabilities\n  b 2: CVE-1")
    assert audit.verdict(report(skipped)) == (0, "pip-audit: not run (its source knows none of the packages)")


def test_a_vulnerable_npm_package_fails_and_a_source_away_did_not_run() -> None:
    sound: dict[str, Any] = {"vulnerabilities": {}, "metadata": {"dependencies": {"total": 3}}}
    bad = {"vulnerabilities": {"left-pad": {"severity": "high"}}, "metadata": {"dependencies": {"total": 3}}}
    away = {"message": "request to the registry failed", "error": {"summary": "it refused", "code": "ENOAUDIT"}}
    assert audit.npm_verdict(json.dumps(sound)) == (0, "npm audit: no known vulnerability in 3 packages")
    assert audit.npm_verdict(json.dumps(bad)) == (1, "npm audit: known vulnerabilities\n  left-pad: high")
    assert audit.npm_verdict(json.dumps(away)) == (0, "npm audit: not run (it refused)")
    with pytest.raises(ValueError, match="Expecting value"):
        audit.npm_verdict("")


def test_our_package_json_is_found_and_those_of_packages_are_not(tmp_path: Path) -> None:
    for folder in ("clients/web", "clients/web/node_modules/left-pad", "build/x", ".venv/lib"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "package.json").write_text("{}")
    assert audit.npm_projects(tmp_path) == [tmp_path / "clients/web"]


def test_a_package_json_without_a_lock_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "package.json").write_text("{}")
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    monkeypatch.setattr(audit, "_audit_python", lambda: 0)
    assert audit.main() == 1
    assert "no package-lock.json" in capsys.readouterr().out


def test_a_tool_that_is_not_there_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("package.json", "package-lock.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    monkeypatch.setattr(audit, "_audit_python", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert audit.main() == 0
    assert "npm audit: not run (npm is not installed)" in capsys.readouterr().out

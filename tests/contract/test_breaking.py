"""The gate against breaking changes has teeth: planted breaks are caught, additions pass."""

import subprocess
from pathlib import Path

import pytest

from scripts import check_breaking
from scripts.paths import run_tool
from scripts.proto import link_third_party

HEAD = 'syntax = "proto3";\n\npackage pincex.trial.v1;\n\nimport "google/api/annotations.proto";\n\n'
CONTRACT = (
    HEAD
    + """service TrialService {
  rpc Get(GetRequest) returns (GetResponse) {
    option (google.api.http) = {get: "/api/v1/trial"};
  }
}
message GetRequest {
  string name = 1;
}
message GetResponse {
  int64 size = 1;
}
"""
)


@pytest.fixture
def workspace(tmp_path: Path, repository: Path) -> Path:
    """A git repository with one committed contract."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "config", "user.email", "test@example.test")
    git(tmp_path, "config", "user.name", "Test")
    (tmp_path / "buf.yaml").write_bytes((repository / "buf.yaml").read_bytes())
    for folder in ("google/api", "google/rpc"):
        assert (repository / "build" / "sp" / folder).is_dir()
    write(tmp_path, CONTRACT)
    link_third_party(tmp_path)
    git(tmp_path, "add", "proto", "buf.yaml")
    git(tmp_path, "commit", "--quiet", "--message=contract")
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)


def write(root: Path, contract: str) -> None:
    target = root / "proto" / "pincex" / "trial" / "v1" / "trial.proto"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(contract, encoding="utf-8")


def breaks(root: Path) -> list[str]:
    baseline = check_breaking.find_baseline(root)
    assert baseline is not None
    return check_breaking.breaks_since(baseline, root)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  string name = 1;\n", "", 'field "1" with name "name"'),
        ("int64 size", "int32 size", "changed type"),
        ("rpc Get(", "rpc Fetch(", '"Get" on service "TrialService" was deleted'),
        ("/api/v1/trial", "/api/v1/trials", "GET /api/v1/trial: gone"),
        ("get:", "delete:", "GET /api/v1/trial: gone"),
    ],
)
def test_a_breaking_change_is_caught(old: str, new: str, said: str, workspace: Path) -> None:
    assert old in CONTRACT
    write(workspace, CONTRACT.replace(old, new))
    assert any(said in line for line in breaks(workspace)), breaks(workspace)


def test_an_addition_breaks_nothing(workspace: Path) -> None:
    write(workspace, CONTRACT.replace("int64 size = 1;", "int64 size = 1;\n  string note = 2;"))
    assert breaks(workspace) == []


def test_the_baseline_is_the_last_commit_then_its_parent_then_the_release(workspace: Path) -> None:
    assert check_breaking.find_baseline(workspace) is None  # one commit, clean: nothing before it
    write(workspace, CONTRACT + "\nmessage More {}\n")
    first = commit(workspace)
    assert check_breaking.find_baseline(workspace) == first
    git(workspace, "commit", "--quiet", "--all", "--message=more")
    assert check_breaking.find_baseline(workspace) == first
    git(workspace, "tag", "v1.0.0")
    assert check_breaking.find_baseline(workspace) == commit(workspace)


def commit(root: Path) -> str:
    return run_tool(["git", "rev-parse", "HEAD"], cwd=root).strip()


def test_a_declared_break_passes_until_the_first_release(workspace: Path) -> None:
    first = commit(workspace)
    write(workspace, CONTRACT.replace("  string name = 1;\n", ""))
    git(workspace, "commit", "--quiet", "--all", "--message=drop\n\nContract-Break: nobody uses it yet")
    assert breaks(workspace) != []
    assert check_breaking.is_declared(first, workspace)
    git(workspace, "tag", "v1.0.0", first)
    assert not check_breaking.is_declared(first, workspace)

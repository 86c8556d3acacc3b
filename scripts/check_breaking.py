"""Refuse changes of proto/ that break a client: `make lint` runs this.

    python -m scripts.check_breaking             against the baseline below
    python -m scripts.check_breaking --ref REF   against any commit, tag or branch

The baseline is the newest of: the last release (tag `v*`), where there is one; else `origin/main`, while
it differs from HEAD; else HEAD for uncommitted changes, and its parent without any. Judged are the
descriptors (`buf breaking`, FILE rules) and, since buf does not look into options, the REST paths: each
verb and path must still lead to the same RPC.

Before the first release a break may be meant. A commit since the baseline whose message has a line
`Contract-Break: <why>` says so: the breaks are printed and pass. After a release nothing lifts the gate.
"""

import argparse
import json
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from subprocess import DEVNULL, run
from typing import Final

from scripts import openapi
from scripts.paths import ROOT, ToolError, run_tool
from scripts.proto import build_image, link_third_party

_TRAILER: Final = "Contract-Break:"


def find_baseline(root: Path = ROOT) -> str | None:
    """Return the commit to compare with, or None where history has no contract yet."""
    head = _commit("HEAD", root)
    if head is None:
        return None
    release = _last_release(root)
    origin = _commit("origin/main", root)
    if release is not None:
        candidate: str | None = release
    elif origin is not None and origin != head:
        candidate = origin
    elif run_tool(["git", "status", "--porcelain", "--", "proto"], cwd=root):
        candidate = head
    else:
        candidate = _commit("HEAD~1", root)
    if candidate is None or not run_tool(["git", "ls-tree", candidate, "--", "proto"], cwd=root):
        return None
    return candidate


def breaks_since(baseline: str, root: Path = ROOT) -> list[str]:
    """Return one line for each break between a commit and the working tree."""
    with tempfile.TemporaryDirectory(prefix="pincex-breaking-") as scratch:
        old_root = Path(scratch) / "old"
        _extract(baseline, root, old_root)
        link_third_party(old_root)
        link_third_party(root)
        old_image = Path(scratch) / "old.binpb"
        run_tool(["buf", "build", "proto", "-o", old_image], cwd=old_root)
        found: list[str] = []
        try:
            run_tool(["buf", "breaking", "proto", "--against", old_image], cwd=root)
        except ToolError as error:
            found += str(error).splitlines()[1:]
        found += http_breaks(_operations(old_root, scratch), _operations(root, scratch))
    return found


def http_breaks(old: dict[tuple[str, str], str], new: dict[tuple[str, str], str]) -> list[str]:
    """Return one line for each (verb, path) of `old` that `new` lacks or leads elsewhere."""
    found = []
    for (verb, path), method in sorted(old.items()):
        now = new.get((verb, path))
        if now is None:
            found.append(f"{verb.upper()} {path}: gone (it led to {method})")
        elif now != method:
            found.append(f"{verb.upper()} {path}: leads to {now}, it led to {method}")
    return found


def is_declared(baseline: str, root: Path = ROOT) -> bool:
    """Return whether a commit after an unreleased baseline says that the break is meant."""
    if _last_release(root) == baseline:
        return False
    messages = run_tool(["git", "log", "--format=%B", f"{baseline}..HEAD"], cwd=root)
    return any(line.startswith(_TRAILER) and line != _TRAILER for line in messages.splitlines())


def _last_release(root: Path) -> str | None:
    tags = run_tool(["git", "tag", "--list", "v*", "--merged", "HEAD", "--sort=-creatordate"], cwd=root)
    return _commit(tags.split()[0], root) if tags.split() else None


def _commit(ref: str, root: Path) -> str | None:
    found = run(  # noqa: S603 - no shell; the arguments are our own
        ["git", "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"],  # noqa: S607 - git is on PATH
        cwd=root,
        capture_output=True,
        text=True,
        stdin=DEVNULL,
        check=False,
    )
    return found.stdout.strip() or None


def _extract(commit: str, root: Path, target: Path) -> None:
    """Write the contracts of a commit, with the workspace file of today, to `target`.

    Today's buf.yaml: its modules say how to compile, and its rules are the ones in force.
    """
    archive = run(  # noqa: S603 - no shell; the arguments are our own
        ["git", "archive", commit, "--", "proto"],  # noqa: S607 - git is on PATH
        cwd=root,
        capture_output=True,
        stdin=DEVNULL,
        check=True,
    ).stdout
    target.mkdir()
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(target, filter="data")
    (target / "buf.yaml").write_bytes((root / "buf.yaml").read_bytes())


def _operations(root: Path, scratch: str) -> dict[tuple[str, str], str]:
    image = Path(scratch) / "openapi.binpb"
    build_image(image, source_info=False, root=root)
    return openapi.operations(json.loads(openapi.render(image.read_bytes())))


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ref", help="the commit to compare with")
    ref: str | None = parser.parse_args().ref
    try:
        baseline = ref or find_baseline()
        if baseline is None:
            print("breaking: no baseline yet")
            return 0
        found = breaks_since(baseline)
        declared = bool(found) and is_declared(baseline)
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    for line in found:
        print(line)
    if not found:
        print(f"breaking: none since {baseline[:12]}")
    elif declared:
        print(f"breaking: the above since {baseline[:12]}, declared by a {_TRAILER} line")
    else:
        print(f"breaking: the above since {baseline[:12]} would break clients", file=sys.stderr)
    return 1 if found and not declared else 0


if __name__ == "__main__":
    raise SystemExit(main())

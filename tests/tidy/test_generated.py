"""What is generated is what the sources say."""

import json
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from scripts import proto
from scripts.paths import GENERATED, OPENAPI


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, bytes]:
    return proto.generate(tmp_path_factory.mktemp("generated"))


def test_generated_files_match_the_contracts(fresh: dict[Path, bytes]) -> None:
    assert proto.differences(fresh) == {}, "run `make proto`"


def test_stale_missing_and_left_over_files_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proto, "GENERATED", tmp_path)
    for name, content in {"same": b"1", "stale": b"old", "extra": b"?"}.items():
        (tmp_path / name).write_bytes(content)
    expected = {tmp_path / "same": b"1", tmp_path / "stale": b"new", tmp_path / "absent": b"2"}
    wrong = {
        tmp_path / "stale": "changed",
        tmp_path / "absent": "missing",
        tmp_path / "extra": "left over",
    }
    assert proto.differences(expected) == wrong
    assert proto.write(expected) == wrong
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == expected


def test_the_openapi_document_is_valid() -> None:
    validate(json.loads(OPENAPI.read_text(encoding="utf-8")))


def test_every_generated_python_file_says_so(fresh: dict[Path, bytes]) -> None:
    silent = [
        path
        for path, content in fresh.items()
        if path.suffix in (".py", ".pyi") and b"generated" not in content[:400].lower()
    ]
    assert silent == []
    assert GENERATED / "py.typed" in fresh

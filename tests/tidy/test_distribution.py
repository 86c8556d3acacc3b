"""An exchange that tests share runs as long as they do, and no longer."""

import subprocess
import sys
from pathlib import Path

import pytest

USES = "def test_it(exchange_stack):\n    pass\n"
NEEDS_NONE = "def test_it():\n    pass\n"
CONFTEST = """
import pytest

SAID = open({said!r}, "a", buffering=1)


@pytest.fixture(scope="session")
def exchange_stack():
    SAID.write("up ")
    yield
    SAID.write("down ")


def pytest_runtest_call(item):
    SAID.write(item.path.stem.removeprefix("test_") + " ")
"""
NO_WORKERS = ("-n", "0")
ONE_WORKER = ("-n", "1", "--dist", "loadfile")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(NO_WORKERS, "a up b c d down e", id="the order of files: until the last that uses it"),
        pytest.param(ONE_WORKER, "up b d down a c e", id="a worker: files that use it come together"),
    ],
)
def test_a_shared_exchange_ends_with_the_last_of_its_tests(
    repository: Path, tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    said = tmp_path / "said"
    (tmp_path / "conftest.py").write_text(CONFTEST.format(said=str(said)))
    for name, content in {"a": NEEDS_NONE, "b": USES, "c": NEEDS_NONE, "d": USES, "e": NEEDS_NONE}.items():
        (tmp_path / f"test_{name}.py").write_text(content)

    command = [sys.executable, "-m", "pytest", "-p", "tests.distribution", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    ran = subprocess.run(
        [*command, *options, f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert said.read_text().split() == expected.split()

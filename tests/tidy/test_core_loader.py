"""A compiled core runs only while it is the core that lies here."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from exchange.trading import core_loader

LOADER = "services/exchange/trading/core_loader.py"
SOURCES = {
    "ticks.py": "def double(value: int) -> int:\n    return value * 2\n",
    "book.py": (
        "from exchange.trading.core.ticks import double\n\n\n"
        "def price(value: int) -> int:\n    return double(value) + 1\n"
    ),
}
PROBE = """
import exchange.trading
from exchange.trading import core_loader
from exchange.trading.core import book
print(core_loader.mode(), book.price(20), book.__file__.rpartition(".")[2])
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A copy of setup.py and the loader around a core of two modules, built in place."""
    root = tmp_path_factory.mktemp("project")
    trading = root / "services" / "exchange" / "trading"
    (trading / "core").mkdir(parents=True)
    for package in (trading.parent, trading / "core"):
        (package / "__init__.py").touch()
    (root / "clients" / "python").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", LOADER, "services/exchange/trading/__init__.py"):
        (root / name).write_bytes((repository / name).read_bytes())
    for name, source in SOURCES.items():
        (trading / "core" / name).write_text(source, encoding="utf-8")
    build(root)
    return root


def build(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=root,
        env={**os.environ, "PINCEX_REQUIRE_COMPILED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "core compiled" in done.stdout


def probe(root: Path, **environment: str) -> tuple[str, str]:
    """What the copy says in a new process: its standard output and error."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=root,
        # What is edited twice in a second would look unchanged to Python's own cache.
        env={
            **os.environ,
            "PINCEX_PURE": "",
            "PYTHONPATH": str(root / "services"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip(), done.stderr.strip()


@pytest.fixture
def core(compiled: Path):
    """The folder of the core; what a test does to it is undone."""
    folder = compiled / "services" / "exchange" / "trading" / "core"
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    yield folder
    for path in folder.iterdir():
        if path.is_file() and path not in before:
            path.unlink()
    for path, content in before.items():
        path.write_bytes(content)


def test_a_fresh_build_runs_compiled(compiled: Path) -> None:
    assert probe(compiled) == ("compiled 41 so", "")


def test_the_group_library_lies_in_the_package(core: Path) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert {path.name for path in core.glob("*.so")} == {
        f"{name}{suffix}" for name in ("_core__mypyc", "book", "ticks")
    }


def test_pincex_pure_runs_the_sources_in_silence(compiled: Path) -> None:
    assert probe(compiled, PINCEX_PURE="1") == ("pure 41 py", "")


def test_an_edited_source_runs_interpreted_and_warns_once(compiled: Path, core: Path) -> None:
    (core / "ticks.py").write_text(SOURCES["ticks.py"].replace("* 2", "* 3"), encoding="utf-8")
    out, warning = probe(compiled)
    assert out == "pure 61 py"
    assert warning.splitlines() == [
        "pincex: the core runs interpreted; changed since the build: ticks.py. `make install` compiles it."
    ]


def test_a_changed_domain_constant_makes_the_build_stale(compiled: Path) -> None:
    constant = compiled / "services" / "exchange" / "domain" / "scale.py"
    constant.parent.mkdir()
    constant.write_text("SCALE = 8\n", encoding="utf-8")
    try:
        out, warning = probe(compiled)
    finally:
        constant.unlink()
        constant.parent.rmdir()
    assert out == "pure 41 py"
    assert "../../domain/scale.py" in warning


@pytest.mark.parametrize("stamp", [None, "not json", json.dumps({"sources": {"gone.py": "00"}})])
def test_a_build_without_a_matching_stamp_does_not_run(stamp: str | None, compiled: Path, core: Path) -> None:
    if stamp is None:
        (core / "_core.build.json").unlink()
    else:
        (core / "_core.build.json").write_text(stamp, encoding="utf-8")
    out, warning = probe(compiled)
    assert out == "pure 41 py"
    assert warning


def test_a_core_that_mypyc_refuses_is_left_interpreted(compiled: Path, core: Path) -> None:
    (core / "ticks.py").write_text(SOURCES["ticks.py"] + 'WRONG: int = "text"\n', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=compiled,
        env={name: value for name, value in os.environ.items() if name != "PINCEX_REQUIRE_COMPILED"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the core stays interpreted" in done.stderr
    assert probe(compiled)[0] == "pure 41 py"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The folder of a core of two modules, which nobody has compiled."""
    folder = tmp_path / "exchange" / "trading" / "core"
    folder.mkdir(parents=True)
    for name, source in SOURCES.items():
        (folder / name).write_text(source, encoding="utf-8")
    return folder


def pretend_to_compile(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}").touch()


def test_a_stamp_is_written_only_for_a_whole_build(sources: Path) -> None:
    assert not core_loader.write_stamp(sources, sources)
    pretend_to_compile(sources, "book", "ticks")
    assert not core_loader.write_stamp(sources, sources)  # the shims without the group's library
    pretend_to_compile(sources, "_core__mypyc")
    assert core_loader.write_stamp(sources, sources)
    assert core_loader.stale_reason(sources) is None
    core_loader.remove_build(sources)
    assert {path.name for path in sources.iterdir()} == set(SOURCES)


def test_a_new_and_a_deleted_module_make_the_build_stale(sources: Path) -> None:
    pretend_to_compile(sources, "book", "ticks", "_core__mypyc")
    core_loader.write_stamp(sources, sources)
    (sources / "stops.py").touch()
    (sources / "ticks.py").unlink()
    assert core_loader.stale_reason(sources) == "changed since the build: stops.py, ticks.py"


def test_the_pure_finder_serves_the_modules_of_its_package_and_no_other(sources: Path) -> None:
    finder = core_loader.PureFinder("exchange.trading.core", sources)
    found = finder.find_spec("exchange.trading.core.book", None)
    assert found is not None
    assert found.origin == str(sources / "book.py")
    for name in ("exchange.trading.core", "exchange.trading.core.absent", "exchange.trading.core.a.b", "json"):
        assert finder.find_spec(name, None) is None


def test_the_mode_of_this_process_follows_its_environment() -> None:
    asked_for_pure = os.environ.get("PINCEX_PURE", "") not in ("", "0")
    assert core_loader.mode() in (("pure",) if asked_for_pure else ("compiled", "pure"))
    assert core_loader.install() == core_loader.mode()

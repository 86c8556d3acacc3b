"""What every suite may use; fixtures of one part live beside its tests."""

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

# Tests start processes while gRPC's threads run. Its fork handlers, made for forks without exec, can crash the child
# before it has become the program; read when gRPC starts, so said before anything imports it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Nobody outside is asked in a test. Each of our processes would read the certificates of all the world's authorities at its start,
# by the import of aiohttp: 70 ms. The folder is one that holds none.
os.environ.update(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=str(Path(__file__).parent))

# Shared by suites in several folders; here, before whichever of them is collected first.
pytest.register_assert_rewrite("tests.unit.journal.contract_suite")

pytest_plugins = ["tests.distribution", "tests.postgres_fixture", "tests.stack_fixture", "tests.valkey_fixture"]

_MAX_SEED = 2**31


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="seed of simulations; a failing run prints the one that repeats it")


def pytest_report_header(config: pytest.Config) -> str:
    core = "pure" if os.environ.get("PINCEX_PURE", "") not in ("", "0") else "compiled where it is fresh"
    seed = config.getoption("--seed")
    return f"core: {core}" + ("" if seed is None else f", seed: {seed}")


# Where nothing of what is gated runs in the test's own process, or only compiled: tracing it costs half as much again as the test.
_NOT_COVERED = (
    *("tests/e2e/", "tests/runbooks/", "tests/simulation/", "tests/tidy/", "tests/contract/", "tests/unit/core/"),
    *("tests/integration/stack/", "tests/integration/market_data/", "tests/integration/market_maker/"),
    *("tests/integration/websocket/", "tests/unit/market_data/", "tests/unit/market_maker/", "tests/unit/websocket/"),
    *("tests/unit/client/", "tests/unit/docs/", "tests/unit/stack/", "tests/unit/tests/"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("PINCEX_PURE", "") in ("", "0"):
        for item in items:
            if item.nodeid.startswith(_NOT_COVERED):
                item.add_marker(pytest.mark.no_cover)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of `--seed`, else a new one for each test; shown when the test fails."""
    given: int | None = request.config.getoption("--seed")
    chosen = random.SystemRandom().randrange(_MAX_SEED) if given is None else given
    print(f"repeat with: --seed {chosen}")
    return chosen


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Returns ports of the loopback interface, free now and each another."""
    given: set[int] = set()

    def pick() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return pick


@pytest.fixture(scope="session")
def shared_folder(repository: Path) -> Path:
    """What lies beside the repository and belongs to others: recorded flows, the runbooks as they were given to us."""
    return Path(os.environ.get("PINCEX_SHARED", repository.parent / "shared"))


@pytest.fixture(scope="session")
def recorded_flow(shared_folder: Path) -> Path:
    """The folder with the recorded order flow; it belongs to the venue, so it lies beside the repository, not in it."""
    folder = shared_folder / "data" / "real-order-flow"
    if not folder.is_dir():
        pytest.skip(f"no recorded order flow at {folder} (set PINCEX_SHARED)")
    return folder


@pytest.fixture(scope="session")
def source_runbook(shared_folder: Path) -> str:
    """The operational runbooks as they were given to us: what they print must work as printed."""
    file = shared_folder / "source-runbooks" / "pincex-operational-runbooks.md"
    if not file.is_file():
        pytest.skip(f"no source runbooks at {file} (set PINCEX_SHARED)")
    return file.read_text(encoding="utf-8")

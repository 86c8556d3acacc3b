"""One report for all benchmarks of a run."""

import os
from collections.abc import Iterator

import pytest

from tests.bench.report import Report


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """What is measured; written when the run ends."""
    collected = Report()
    collected.keep("load_before", round(os.getloadavg()[0], 2))
    yield collected
    collected.write()

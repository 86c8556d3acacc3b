"""Which matching rules this process takes part in: those of its build, or fewer where it stands in for an older build.

A rolling upgrade is tested with one source tree: a process whose `restrict` was called (PINCEX_MAX_RULES) behaves as the
build that did not know the newer rules yet. It must not be asked to activate them, and refuses frames and snapshots that
were written under them. The core itself never asks: what it does with a journaled command is the same in every process.
"""

from __future__ import annotations

from exchange.trading.core.constants import RULES_VERSION

_newest = RULES_VERSION


def newest() -> int:
    """The newest rules that this process supports; it supports all before them."""
    return _newest


def supports(version: int) -> bool:
    """Whether this process may read frames and snapshots of these rules, and lead under them."""
    return 1 <= version <= _newest


def restrict(version: int) -> None:
    """Support no newer rules than these, once, at the start of the process. Raises ValueError for unknown ones."""
    global _newest  # noqa: PLW0603 - what a build knows is one fact of one process
    if not 1 <= version <= RULES_VERSION:
        raise ValueError(f"rules {version}: this build knows 1 to {RULES_VERSION}")
    _newest = version

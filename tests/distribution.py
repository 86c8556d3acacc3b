"""Which worker gets which tests, in which order; and when an exchange that tests share is ended."""

import functools
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

# Whole exchanges that many files share, each started once by whichever worker of pytest-xdist gets those files.
_SHARED_EXCHANGES = ("exchange_stack", "production_stack", "trading_stack")

# Where tests take longest, longest first: what is given out last should be short, or one worker ends alone.
_LONG_FIRST = (*_SHARED_EXCHANGES, "tests/runbooks/", "tests/e2e/", "tests/simulation/", "tests/integration/")


class _LongFirst(OrderedDict[str, dict[str, bool]]):
    """The units of work by scope; the next one is that which probably takes longest."""

    def popitem(self, last: bool = True) -> tuple[str, dict[str, bool]]:  # noqa: FBT001, FBT002 - the base's signature
        """Whatever `last` says."""
        del last

        def rank(scope: str) -> tuple[int, int]:
            kinds = [number for number, prefix in enumerate(_LONG_FIRST) if scope.startswith(prefix)]
            return min(kinds, default=len(_LONG_FIRST)), -len(self[scope])

        scope = min(self, key=rank)
        return scope, self.pop(scope)


class _Files(LoadScopeScheduling):  # type: ignore[misc]
    """Files go whole to one worker, for their tests may share what the file starts; those on a shared exchange all go to the
    same, for a second exchange would cost its start once more.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self.workqueue = _LongFirst()

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        exchange = _exchange_of(self.config.rootpath / file)
        return exchange or file


@functools.cache
def _exchange_of(file: Path) -> str | None:
    """The shared exchange that its tests use."""
    text = file.read_text(encoding="utf-8")
    return next((exchange for exchange in _SHARED_EXCHANGES if exchange in text), None)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Files | None:
    return _Files(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Ends a shared exchange with the last of its tests: it would take a fifth of a core while it waited for the session's end."""
    yield
    exchange = _exchange_of(item.path)
    if exchange is None or nextitem is None or not isinstance(item, pytest.Function):
        return
    if not _comes_again(exchange, item, nextitem):
        for found in item.session._fixturemanager.getfixturedefs(exchange, item) or ():
            # As pytest itself ends a fixture before its time, where a parameter changes; at the next request it starts anew.
            found.finish(item._request)  # type: ignore[arg-type]  # it only says in which node it failed


def _comes_again(exchange: str, item: pytest.Item, nextitem: pytest.Item) -> bool:
    if _exchange_of(nextitem.path) == exchange:
        return True
    if hasattr(item.config, "workerinput"):
        # A worker of pytest-xdist gets all files on an exchange one after the other, and no other worker gets any.
        return False
    later = item.session.items[item.session.items.index(item) + 1 :]
    return any(_exchange_of(file) == exchange for file in {one.path for one in later})

"""`bash scripts/chaos_monkey.sh`: chaos on a real exchange. Exit status 1 where a promise was broken, 2 for wrong options."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exchange.stack.control import NotRunning, request
from pincex_client import ExchangeError
from tests.chaos.monkey import Options, run
from tests.chaos.summary import text
from tests.integration.recovery.edge import AtTheEdge
from tests.stack_fixture import ExchangeStack, StackFolder, exchange_in, running_stack, stack_folder, temporary_home


def options() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="scripts/chaos_monkey.sh", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults strike (60)")
    parser.add_argument("--seed", type=int, help="of faults and load; a random one is chosen, and shown, without")
    parser.add_argument("--engines", type=int, default=3, help="trading engines (3)")
    parser.add_argument(
        "--standby",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="PostgreSQL with a standby: killing it is a fail-over, not a restart",
    )
    return parser


@contextmanager
def exchange_of(home: str | None, *, standby: bool) -> Iterator[ExchangeStack]:
    """The one that runs in PINCEX_HOME, or one of its own in a temporary folder. Raises NotRunning."""
    if home is None:
        with (
            temporary_home() as folder,
            running_stack(stack_folder(folder), *(["--standby"] if standby else [])) as own,
        ):
            yield own
        return
    path = Path(home).resolve()
    request(path, "status")
    yield exchange_in(StackFolder(path, {**os.environ, "PINCEX_HOME": str(path)}))


@contextmanager
def logs_kept(stack: ExchangeStack) -> Iterator[None]:
    """Keeps the logs of a run that fails, and says where: its folder goes."""
    try:
        yield
    except BaseException:
        kept = Path(tempfile.mkdtemp(prefix="pincex-chaos-logs-"))
        shutil.copytree(stack.home / "logs", kept, dirs_exist_ok=True)
        print(f"logs: {kept}", file=sys.stderr)
        raise


def main() -> int:
    """Run it and print the summary."""
    given = options().parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(2**31)
    print(f"chaos for {given.seconds:g} s with {given.engines} engines; repeat with: --seed {seed}", flush=True)
    try:
        with exchange_of(os.environ.get("PINCEX_HOME"), standby=given.standby) as stack:
            chosen = Options(given.seconds, seed, given.engines)
            with logs_kept(stack):
                outcome = asyncio.run(run(AtTheEdge(stack), chosen, lambda line: print(line, flush=True)))
    except NotRunning as error:
        print(error, file=sys.stderr)
        return 2
    except (AssertionError, TimeoutError, ExchangeError, pytest.fail.Exception):
        traceback.print_exc()
        print(f"A PROMISE WAS BROKEN, or could not be proved; repeat with: --seed {seed}", file=sys.stderr)
        return 1
    print(text(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Where the exchange is: options, environment, the running stack of this folder, or the well-known ports."""

import functools
import importlib
import os
from pathlib import Path
from typing import Any

DEFAULT_TARGET = "127.0.0.1:8080"
DEFAULT_OPS_TARGET = "127.0.0.1:8081"


def edge_target(given: str | None, fallback: str | None = None) -> str:
    """The public edge: `--target` or PINCEX_TARGET, else what the running stack says, else the fallback or 127.0.0.1:8080."""
    return given or _without_scheme(stack_status().get("edge_url")) or fallback or DEFAULT_TARGET


def ops_target(given: str | None, fallback: str | None = None) -> str:
    """The ops listener: `--ops-target` or PINCEX_OPS_TARGET, else the running stack's, else the fallback or 127.0.0.1:8081."""
    return given or _without_scheme(stack_status().get("ops_url")) or fallback or DEFAULT_OPS_TARGET


@functools.cache
def stack_status() -> dict[str, Any]:
    """What `pincex status --json` would say; empty without the server package or without a running stack."""
    try:
        config = importlib.import_module("exchange.stack.config")
        control = importlib.import_module("exchange.stack.control")
        errors = importlib.import_module("exchange.stack.errors")
    except ImportError:
        return {}
    try:
        status: dict[str, Any] = control.request(config.find_home(os.environ, Path.cwd()), "status")
    except (errors.StackError, OSError):
        return {}
    return status


def _without_scheme(url: Any) -> str:
    return url.split("://", 1)[-1].rstrip("/") if isinstance(url, str) else ""

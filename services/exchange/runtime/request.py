"""What is known of the call that runs now: its id, who makes it, until when it may take.

The server's wrapper sets it before the handler runs, in a context variable: each call is a task of its own, and tasks
that a handler starts inherit it, log lines included.
"""

import itertools
import secrets
import time
from contextvars import ContextVar
from typing import Final

import msgspec

from exchange.runtime.principal import ANONYMOUS, Principal

REQUEST_ID_KEY: Final = "x-request-id"
_MAX_REQUEST_ID: Final = 64
_REQUEST_ID_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")

# Unique without a system call per request: a random prefix for the process and a counter.
_PREFIX: Final = secrets.token_hex(6)
_COUNTER: Final = itertools.count(1)


class RequestContext(msgspec.Struct, frozen=True, gc=False):
    """One call. `deadline` is on `time.monotonic()`, None where the client set none; `peer` is gRPC's own form."""

    request_id: str
    principal: Principal
    deadline: float | None
    method: str
    peer: str

    def time_remaining(self) -> float | None:
        """Seconds until the client gives up, at least 0; None without a deadline."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.monotonic())


NO_REQUEST: Final = RequestContext(request_id="", principal=ANONYMOUS, deadline=None, method="", peer="")
_current: ContextVar[RequestContext] = ContextVar("pincex_request", default=NO_REQUEST)


def request_context(context: object = None) -> RequestContext:  # noqa: ARG001 - reads well beside the handler's argument
    """Return the call that runs now: `request_context(context)` or just `request_context()`.

    Outside any call it is `NO_REQUEST`: an empty id and the anonymous principal.
    """
    return _current.get()


def set_request_context(call: RequestContext) -> None:
    """Bind `call` to the running task; for the server's wrapper, and for tests of handlers."""
    _current.set(call)


def new_request_id() -> str:
    """Return an id that no other call of any process has."""
    return f"{_PREFIX}-{next(_COUNTER):x}"


def accepted_request_id(given: object) -> str:
    """Return the caller's id where it is 1..64 of [A-Za-z0-9-_.:], else a new one: it ends up in logs and headers."""
    if isinstance(given, str) and 0 < len(given) <= _MAX_REQUEST_ID and _REQUEST_ID_CHARACTERS.issuperset(given):
        return given
    return new_request_id()

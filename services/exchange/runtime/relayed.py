"""Methods that another instance must answer: put through to it as they came, before this one counts them as its own.

An audited call is recorded by the instance that carries it out. One that only passes it on records nothing: else one act
would stand in the trail twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

Behaviour = Callable[[Any, Any], Awaitable[Any]]
Relay = Callable[[Any, Any, Any], Awaitable[Any]]
"""Of a servicer, with request and context: the other instance's answer, or None where this one must answer itself."""

M = TypeVar("M", bound=Callable[..., Any])

_RELAY: Final = "__pincex_relay__"


def relayed(relay: Relay) -> Callable[[M], M]:
    """Mark a method of a servicer: `relay` is asked first."""

    def mark(method: M) -> M:
        setattr(method, _RELAY, relay)
        return method

    return mark


def relaying(handler: Any, behaviour: Behaviour) -> Behaviour:
    """The behaviour, or with a handler that is marked one that asks its relay first."""
    relay: Relay | None = getattr(handler, _RELAY, None)
    if relay is None:
        return behaviour
    servicer = handler.__self__

    async def call(request: Any, context: Any) -> Any:
        answer = await relay(servicer, request, context)
        return answer if answer is not None else await behaviour(request, context)

    return call

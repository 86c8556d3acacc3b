"""Who makes the call that runs now, as the auth service needs to know it."""

from __future__ import annotations

from typing import Any, Final

from exchange.auth.contract import Caller
from exchange.auth.standing import Standing, standing_of_caller
from exchange.auth.users import user_number
from exchange.runtime.client_address import client_address
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.principal import Principal
from exchange.runtime.request import request_context

_AGENT_KEYS: Final = ("x-user-agent", "user-agent")
_MAX_AGENT: Final = 200


def caller(context: Any) -> Caller:
    """From where, and with which program as it says itself."""
    metadata = context.invocation_metadata()
    given = dict(metadata)
    agent = next((given[key] for key in _AGENT_KEYS if key in given), "")
    shown = "".join(character for character in str(agent)[:_MAX_AGENT] if character.isprintable())
    return Caller(client_address(context.peer(), metadata), shown)


def known_user() -> tuple[int, Principal]:
    """The user that a token stands for. Raises ServiceError UNAUTHENTICATED for callers without one.

    The development profile lets callers in that are no users: they trade, but have no password and no sessions.
    """
    principal = request_context().principal
    if not principal.user:
        raise ServiceError(ErrorReason.UNAUTHENTICATED, "this is for users: log in first")
    return user_number(principal.user), principal


def standing() -> Standing:
    """On whom the caller may act."""
    return standing_of_caller(request_context().principal)

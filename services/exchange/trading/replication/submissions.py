"""Commands and results as they cross the link."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from exchange.trading.core.commands import (
    C_ACCOUNT,
    C_BODY,
    C_KIND,
    C_NUMBER,
    C_REQUEST_ID,
    C_SESSION,
    CLOSE_SESSION,
    OPEN_SESSION,
    Command,
)
from exchange.trading.core.events import R_COMMAND, Result

_SAME_COMMAND: Final = 0
"""Stands in a result for the very command that was submitted."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_RESULTS: Final = msgspec.msgpack.Decoder(list[tuple[Any, ...]])
# Opening again attaches again, and a session that is closed cannot be closed twice.
_REPEATABLE_KINDS: Final = frozenset({OPEN_SESSION, CLOSE_SESSION})


def is_repeatable(command: Command) -> bool:
    """Whether a leader that has applied the command already would know it: it has an id, or a number in its session."""
    return bool(
        command[C_REQUEST_ID] or (command[C_SESSION] and command[C_NUMBER]) or command[C_KIND] in _REPEATABLE_KINDS
    )


def sessions_of(commands: list[Command]) -> set[tuple[str, str]]:
    """Account and name of the sessions whose numbers the commands carry."""
    return {(command[C_ACCOUNT], command[C_SESSION]) for command in commands if command[C_SESSION]}


def opened_by(commands: list[Command]) -> set[tuple[str, str]]:
    """Account and name of the sessions that the commands open or attach to."""
    return {(command[C_ACCOUNT], command[C_BODY]) for command in commands if command[C_KIND] == OPEN_SESSION}


def encode_results(results: list[Result], commands: list[Command]) -> bytes:
    """Results for the link; the command that a result carries is left out where it is the one that was submitted."""
    return _ENCODER.encode(
        [
            (*result[:R_COMMAND], _SAME_COMMAND) if result[R_COMMAND] is command else result
            for result, command in zip(results, commands, strict=True)
        ]
    )


def decode_results(data: bytes, commands: list[Command]) -> list[Result]:
    """What `encode_results` was given."""
    decoded: list[Result] = []
    for values, command in zip(_RESULTS.decode(data), commands, strict=True):
        known = values[R_COMMAND]
        decoded.append((*values[:R_COMMAND], command if known == _SAME_COMMAND else tuple(known)))
    return decoded

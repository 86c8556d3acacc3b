"""What the engine remembers of requests, so that each applies once however often it is sent.

Ids are kept for a configured count and age, and as long as their order is open. A request that says when it was first
made and is older than the youngest forgotten id is refused: it can no longer be told from a repeat.
"""

from __future__ import annotations

from typing import Final

from exchange.trading.core.commands import (
    C_ACCOUNT,
    C_BODY,
    C_KIND,
    C_NUMBER,
    C_REQUEST_ID,
    C_REQUEST_TIME,
    C_SESSION,
    P_KEY,
    PLACE,
    Command,
)
from exchange.trading.core.constants import FEE_ACCOUNT
from exchange.trading.core.events import R_COMMAND, R_ORDER_ID, R_TIME, Result
from exchange.trading.core.model import Account, Session, State
from exchange.trading.core.reasons import COMMAND_NUMBER_OUT_OF_WINDOW, DUPLICATE_ID, REQUEST_TOO_OLD, SESSION_NOT_FOUND

_STAYS: Final = 3
"""Length of an entry of State.remembered that stays beyond its turn; a result is longer."""


def refusal(state: State, command: Command, reason: int) -> Result:
    """The result of a command that was refused and changed nothing."""
    return (state.sequence, state.time_ns, reason, 0, 0, 0, 0, 0, 0, 0, 0, 0, command)


def recall(state: State, command: Command) -> Result | None:
    """The answer to a command that must not be applied, or None.

    That is the first result for a repeat, or a refusal: DUPLICATE_ID for a known id with another body,
    REQUEST_TOO_OLD, SESSION_NOT_FOUND, COMMAND_NUMBER_OUT_OF_WINDOW. Changes nothing.
    """
    account = state.accounts.get(command[C_ACCOUNT])
    name: str = command[C_SESSION]
    if name:
        session = account.sessions.get(name) if account is not None else None
        if session is None:
            return refusal(state, command, SESSION_NOT_FOUND)
        number: int = command[C_NUMBER]
        if number <= session.last_number:
            return _recall_number(state, session, number, command)
    request_id: str = command[C_REQUEST_ID]
    if request_id and account is not None:
        first = (account.placed if command[C_KIND] == PLACE else account.requests).get(request_id)
        if first is not None:
            return first if _same(first[R_COMMAND], command) else refusal(state, command, DUPLICATE_ID)
    request_time: int = command[C_REQUEST_TIME]
    if request_time and request_time <= max(state.forgotten_ns, state.time_ns - state.max_id_age_ns):
        return refusal(state, command, REQUEST_TOO_OLD)
    return None


def _same(first: Command, command: Command) -> bool:
    """Whether two commands of one account ask the same; an order that is sent again by another key is the same order."""
    if first[C_KIND] == PLACE:
        return bool(command[C_KIND] == PLACE and first[C_BODY:P_KEY] == command[C_BODY:P_KEY])
    return bool(first[C_KIND] == command[C_KIND] and first[C_BODY:] == command[C_BODY:])


def _recall_number(state: State, session: Session, number: int, command: Command) -> Result:
    for known, result in reversed(session.results):
        if known == number:
            return result if _same(result[R_COMMAND], command) else refusal(state, command, DUPLICATE_ID)
        if known < number:
            break
    return refusal(state, command, COMMAND_NUMBER_OUT_OF_WINDOW)


def remember(state: State, account: Account, command: Command, result: Result) -> None:
    """Keep the result for repeats of the command."""
    request_id: str = command[C_REQUEST_ID]
    if request_id:
        if command[C_KIND] == PLACE:
            account.placed[request_id] = result
        else:
            account.requests[request_id] = result
        remembered = state.remembered
        remembered.append(result)
        oldest_ns: int = remembered[0][R_TIME]
        if len(remembered) > state.max_ids or oldest_ns < state.time_ns - state.max_id_age_ns:
            _forget(state)
    name: str = command[C_SESSION]
    if name:
        session = account.sessions.get(name)
        if session is not None:
            number: int = command[C_NUMBER]
            session.last_number = number
            session.results.append((number, result))


def filed(entry: Result) -> tuple[int, Result]:
    """(time that its age counts from, result) of an entry of State.remembered.

    That is the result itself, which says all that is needed to forget it; or (0, time, result) for one that stays beyond
    its turn, since its order was still open then.
    """
    time_ns: int = entry[R_TIME]
    return (time_ns, entry) if len(entry) > _STAYS else (time_ns, entry[2])


def _forget(state: State) -> None:
    """Drop ids beyond count and age: at most two for each one that came, so that no command pays for all."""
    remembered = state.remembered
    oldest_kept = state.time_ns - state.max_id_age_ns
    for _ in range(2):
        time_ns, result = filed(remembered[0])
        if len(remembered) <= state.max_ids and time_ns >= oldest_kept:
            return
        remembered.popleft()
        command: Command = result[R_COMMAND]
        account = state.accounts[command[C_ACCOUNT] or FEE_ACCOUNT]
        if command[C_KIND] == PLACE:
            if result[R_ORDER_ID] in account.orders:
                remembered.append((0, state.time_ns, result))
                continue
            del account.placed[command[C_REQUEST_ID]]
        else:
            del account.requests[command[C_REQUEST_ID]]
        state.forgotten_ns = max(state.forgotten_ns, time_ns)

"""Stored things as the contract shows them, and its names as they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from google.protobuf import duration_pb2, timestamp_pb2

from exchange.auth.sessions import Opened, Session
from exchange.auth.sub_accounts import SubAccount
from exchange.auth.users import User
from exchange.runtime.errors import ErrorReason, ServiceError, reject
from pincex.auth.v1 import types_pb2, user_service_pb2
from pincex.common.v1 import access_pb2

MAX_REASON: Final = 256
"""Characters of what a caller gives as a reason."""


def user_message(user: User, accounts: Sequence[str], recovery_codes_left: int, now: datetime) -> types_pb2.User:
    """A user, its main account first; a lock that is over is not shown."""
    message = types_pb2.User(
        user_id=str(user.user_id),
        email=user.email,
        email_verified=user.email_verified,
        second_factor=user.second_factor,
        roles=[role_number(role) for role in user.roles],
        tier=user.tier,
        accounts=accounts,
        recovery_codes_left=recovery_codes_left,
    )
    message.created_time.CopyFrom(timestamp(user.created_at))
    if user.is_locked(now):
        message.locked_until_time.CopyFrom(timestamp(user.locked_until or FOR_GOOD))
        message.locked_until_unlocked = user.locked_until is None
    return message


FOR_GOOD: Final = datetime.fromisoformat("9999-12-31T23:59:59+00:00")
"""Until when a lock without an end lasts, where a message has no other way to say that there is one."""


def tokens_message(opened: Opened) -> types_pb2.Tokens:
    """What a log-in or a refresh gives."""
    session = opened.session
    return types_pb2.Tokens(
        access_token=opened.access.text,
        access_expire_time=timestamp_pb2.Timestamp(seconds=opened.access.expires_at),
        refresh_token=opened.refresh_token,
        refresh_expire_time=timestamp(session.expires_at),
        session_id=session.session_id,
        user_id=str(session.user_id),
        account=session.account,
        scopes=map(scope_number, opened.scopes),
    )


def session_message(session: Session, current: str) -> types_pb2.LoginSession:
    """A log-in session; `current` is the one that asks."""
    return types_pb2.LoginSession(
        session_id=session.session_id,
        ip_address=session.address,
        user_agent=session.user_agent,
        created_time=timestamp(session.created_at),
        used_time=timestamp(session.refreshed_at),
        expire_time=timestamp(session.expires_at),
        current=session.session_id == current,
    )


def sub_account_message(sub_account: SubAccount) -> user_service_pb2.SubAccount:
    """An account beside the main one."""
    return user_service_pb2.SubAccount(
        account=sub_account.account, name=sub_account.name, created_time=timestamp(sub_account.created_at)
    )


def timestamp(instant: datetime) -> timestamp_pb2.Timestamp:
    """A time as the wire carries it."""
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(instant)
    return message


def scope_number(name: str) -> access_pb2.Access.Scope.ValueType:
    """The contract's scope of a stored name."""
    return access_pb2.Access.Scope.Value(name.upper())


def scope_names(numbers: Iterable[int]) -> tuple[str, ...]:
    """Stored names of scopes, each once, in the contract's order. Raises ServiceError UNKNOWN_ENUM_VALUE."""
    known: dict[int, str] = {number: name.lower() for name, number in access_pb2.Access.Scope.items() if number}
    wanted = set(numbers)
    if not wanted <= known.keys():
        reject(ErrorReason.UNKNOWN_ENUM_VALUE, field="scopes")
    return tuple(known[number] for number in sorted(wanted))


def role_number(name: str) -> access_pb2.Role.ValueType:
    """The contract's role of a stored name."""
    return access_pb2.Role.Value(name.upper())


def role_names(numbers: Iterable[int]) -> list[str]:
    """Stored names of roles, each once, in the contract's order.

    Raises ServiceError FIELD_REQUIRED for none, UNKNOWN_ENUM_VALUE for one that is not the contract's.
    """
    known: dict[int, str] = {number: name.lower() for name, number in access_pb2.Role.items() if number}
    wanted = set(numbers)
    if not wanted:
        reject(ErrorReason.FIELD_REQUIRED, field="roles")
    if not wanted <= known.keys():
        reject(ErrorReason.UNKNOWN_ENUM_VALUE, field="roles")
    return [known[number] for number in sorted(wanted)]


def reason_text(text: str, *, required: bool = False) -> str:
    """What a caller gave as a reason. Raises ServiceError FIELD_REQUIRED, or INVALID_FIELD where it is too long."""
    text = text.strip()
    if required and not text:
        reject(ErrorReason.FIELD_REQUIRED, field="reason")
    if len(text) > MAX_REASON:
        raise ServiceError(
            ErrorReason.INVALID_FIELD, f"reason is longer than {MAX_REASON} characters", metadata={"field": "reason"}
        )
    return text


def interval(field: str, duration: duration_pb2.Duration, longest: timedelta) -> timedelta:
    """A duration that is longer than nothing. Raises ServiceError INVALID_FIELD, naming the field."""
    # Compared in seconds: what does not fit into a timedelta is refused, too.
    if not 0 <= duration.seconds <= longest.total_seconds() or not 0 <= duration.nanos < 1_000_000_000:
        reject(ErrorReason.INVALID_FIELD, field=field, value=f"{duration.seconds}s")
    found = timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1_000)
    if not timedelta() < found <= longest:
        reject(ErrorReason.INVALID_FIELD, field=field, value=f"{duration.seconds}s")
    return found

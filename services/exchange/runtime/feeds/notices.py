"""What a stream says beside its content: heartbeats, drain notices, and why it ends."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from exchange.runtime.errors import ErrorReason, message_of
from pincex.trading.v1 import types_pb2

# A stream that has nothing to say says so this often.
HEARTBEAT_S: Final = 5.0


def set_time(stamp: Timestamp, time_ns: int) -> None:
    """Fill a timestamp from nanoseconds since 1970."""
    stamp.seconds, stamp.nanos = divmod(time_ns, 1_000_000_000)


def end_message(reason: int, resume_token: str = "") -> types_pb2.StreamEnd:
    """Why a stream ends."""
    name = ErrorReason.Name(reason)  # type: ignore[arg-type]
    return types_pb2.StreamEnd(reason=name, message=message_of(reason), resume_token=resume_token)


def heartbeat(head_sequence: int, time_ns: int, resume_token: str) -> types_pb2.Heartbeat:
    """That all is well at `time_ns`."""
    message = types_pb2.Heartbeat(head_sequence=head_sequence, resume_token=resume_token)
    set_time(message.server_time, time_ns)
    return message


def drain_notice(deadline_ns: int, resume_token: str) -> types_pb2.DrainNotice:
    """That the server stops at `deadline_ns`."""
    message = types_pb2.DrainNotice(resume_token=resume_token)
    set_time(message.deadline_time, deadline_ns)
    return message

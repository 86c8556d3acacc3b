"""Methods that the contract calls `audited`: each call is a record before it is carried out, and after."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import grpc
from google.protobuf import json_format, text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from exchange.runtime.audit.contract import OK, AuditEntry, AuditTrail
from exchange.runtime.client_address import client_address
from exchange.runtime.errors import ServiceError
from exchange.runtime.request import request_context

MAX_DETAILS_BYTES: Final = 4_096
_MAX_DEPTH: Final = 16

# Records under way: a task that nobody refers to may be collected before it has ended.
_writing: Final[set[asyncio.Task[None]]] = set()


def audited(
    trail: AuditTrail, action: str, behaviour: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[Any, Any], Awaitable[Any]]:
    """Return the behaviour with a record around it. `action` is the method, `pincex.x.v1.Service/Method`.

    Where no record can be written the method is not carried out: it raises what `begun` raises.
    """

    async def call(request: Any, context: Any) -> Any:
        entry = _entry(action, request, context)
        await trail.begun(entry)
        outcome = OK
        try:
            response = await behaviour(request, context)
            outcome = _outcome_of_code(context.code())
        except BaseException as error:
            outcome = _outcome_of(error)
            raise
        finally:
            await _to_its_end(trail.ended(entry, outcome))
        return response

    return call


def details_of(request: Message) -> str:
    """The request as JSON without the fields that the contract marks `debug_redact`, in at most MAX_DETAILS_BYTES; what is
    larger becomes `{"cut": <its beginning>}`.
    """
    return _text_of(_without_secrets(request))


def _text_of(shown: Message) -> str:
    try:
        found = json_format.MessageToDict(shown, preserving_proto_field_name=True)
    except json_format.SerializeToJsonError:
        # A time beyond the calendar, say: what to answer to that is for the method itself.
        found = {"text": text_format.MessageToString(shown, as_one_line=True)}
    text = json.dumps(found, separators=(",", ":"))
    if len(text) > MAX_DETAILS_BYTES:
        # ASCII, of which quoting at most doubles a character.
        text = json.dumps({"cut": text[: MAX_DETAILS_BYTES // 2 - 16]}, separators=(",", ":"))
    return text


def _entry(action: str, request: Message, context: Any) -> AuditEntry:
    call = request_context(context)
    # Of a reason that the contract marks, too: what is written of a person is no part of a record that stays.
    shown = _without_secrets(request)
    reason = getattr(shown, "reason", "")
    return AuditEntry(
        action=action,
        actor=call.principal.user or call.principal.account,
        credential=call.principal.credential,
        address=client_address(call.peer, context.invocation_metadata()),
        details=_text_of(shown),
        reason=reason if isinstance(reason, str) else "",
        request_id=call.request_id,
    )


def _without_secrets(request: Message) -> Message:
    """The request itself where its contract marks nothing, else a copy."""
    if not _may_hold_secrets(request.DESCRIPTOR):
        return request
    shown = type(request)()
    shown.CopyFrom(request)
    _clear_secrets(shown, 0)
    return shown


@functools.cache
def _may_hold_secrets(descriptor: Descriptor, depth: int = 0) -> bool:
    """Whether a field is marked, in the messages inside too, or it may be nested too deep to say."""
    return depth >= _MAX_DEPTH or any(
        field.GetOptions().debug_redact
        or (field.message_type is not None and _may_hold_secrets(field.message_type, depth + 1))
        for field in descriptor.fields
    )


def _clear_secrets(message: Message, depth: int) -> None:
    """Empty the fields that are marked, in the messages inside too; what is nested too deep is emptied whole."""
    for field, value in message.ListFields():
        if field.GetOptions().debug_redact:
            message.ClearField(field.name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if depth >= _MAX_DEPTH:
                message.ClearField(field.name)
            for inner in _messages_in(value):
                _clear_secrets(inner, depth + 1)


def _messages_in(value: Any) -> list[Message]:
    """The messages of a field, whether it is one, a list or a map."""
    if isinstance(value, Message):
        return [value]
    items = value.values() if hasattr(value, "values") else value
    return [item for item in items if isinstance(item, Message)]


def _outcome_of_code(code: grpc.StatusCode | None) -> str:
    return OK if code in (None, grpc.StatusCode.OK) else code.name


def _outcome_of(error: BaseException) -> str:
    """The name of the reason; CANCELLED where the caller or the server gave up; INTERNAL for a defect."""
    if isinstance(error, ServiceError):
        return error.reason_name
    if isinstance(error, asyncio.CancelledError):
        return "CANCELLED"
    return "INTERNAL"


async def _to_its_end(writing: Coroutine[Any, Any, None]) -> None:
    """Wait for it, and let it go on if the call is cancelled meanwhile."""
    task = asyncio.create_task(writing)
    _writing.add(task)
    task.add_done_callback(_writing.discard)
    await asyncio.shield(task)

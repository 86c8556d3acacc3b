"""Between the wire and the models: nothing else in this package builds or reads generated result types.

A plain dataclass field takes its value from the message field of the same name; the declared type says how.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from google.protobuf import timestamp_pb2
from google.protobuf.message import Message

from pincex_client import models

Model = TypeVar("Model")
Getter = Callable[[Any], Any]

_SIMPLE: Mapping[object, Callable[[Any], Any]] = {
    Decimal: lambda text: Decimal(text or "0"),
    Decimal | None: lambda text: Decimal(text) if text else None,
    int: int,
    bool: bool,
    tuple[str, ...]: tuple,
}


def from_wire(kind: type[Model], message: Message) -> Model:
    """Convert one message to its model."""
    model: Any = kind
    wire: Any = type(message)
    converted: Model = model(**{name: get(message) for name, get in _getters(model, wire)})
    return converted


@functools.cache
def _getters(kind: Any, message_type: Any) -> tuple[tuple[str, Getter], ...]:
    hints = get_type_hints(kind)
    fields = message_type.DESCRIPTOR.fields_by_name
    return tuple((field.name, _getter(field.name, hints[field.name], fields)) for field in dataclasses.fields(kind))


def _getter(name: str, hint: Any, fields: Mapping[str, Any]) -> Getter:
    enum = fields[name].enum_type
    if enum is not None:
        names = {value.number: "" if value.number == 0 else value.name for value in enum.values}
        if hint == tuple[str, ...]:
            return lambda message: tuple(names.get(number, str(number)) for number in getattr(message, name))
        # A value newer than this client shows as its number.
        return lambda message: names.get(getattr(message, name), str(getattr(message, name)))
    if hint == datetime | None:
        return lambda message: to_datetime(getattr(message, name)) if message.HasField(name) else None
    if hint == tuple[models.Level, ...]:
        return lambda message: levels(getattr(message, name))
    if get_origin(hint) is tuple and dataclasses.is_dataclass(get_args(hint)[0]):
        kind = get_args(hint)[0]
        return lambda message: tuple(from_wire(kind, item) for item in getattr(message, name))
    convert = _SIMPLE.get(hint)
    if convert is None:
        return lambda message: getattr(message, name)
    return lambda message: convert(getattr(message, name))


def levels(items: Any) -> tuple[models.Level, ...]:
    """Price levels of a message as models, in the same order."""
    return tuple(models.Level(Decimal(item.price), Decimal(item.quantity), item.order_count) for item in items)


def to_datetime(stamp: timestamp_pb2.Timestamp) -> datetime:
    """Timestamp to an aware datetime in UTC (microseconds; the nanoseconds beyond are cut)."""
    return stamp.ToDatetime(tzinfo=UTC)


def to_timestamp(moment: datetime) -> timestamp_pb2.Timestamp:
    """Aware datetime to Timestamp; a naive one is refused, since nobody knows which zone it means."""
    if moment.tzinfo is None:
        raise ValueError("expire_time needs a time zone, such as datetime.now(UTC)")
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def now_timestamp() -> timestamp_pb2.Timestamp:
    """The client's clock, for `request_time`."""
    stamp = timestamp_pb2.Timestamp()
    stamp.GetCurrentTime()
    return stamp


def plain_decimal(value: "Decimal | int | str", field: str) -> str:
    """Write an amount as the contract wants it; text goes as it is, so that the exchange judges it.

    Raises TypeError for a float: 0.1 + 0.2 is no amount of money.
    """
    match value:
        case bool() | float():
            raise TypeError(f"{field}: give Decimal, int or str, not {type(value).__name__}")
        case Decimal():
            return format(value, "f")
        case int():
            return str(value)
        case str():
            return value
    raise TypeError(f"{field}: give Decimal, int or str, not {type(value).__name__}")

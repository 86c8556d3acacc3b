"""The body of SetSpreads: a map of symbols to spreads, as JSON has it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from exchange.domain.decimals import DecimalError, decimals_of
from exchange.domain.symbols import canonical_symbol
from exchange.market_maker.changing import spread
from exchange.runtime.errors import ErrorReason, ServiceError, reject

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct, Value

FIELDS: Final = ("min_spread", "max_spread")
MAX_MARKETS: Final = 500


def read_spreads(spreads: Struct) -> dict[str, dict[str, Decimal]]:
    """By symbol, what shall change of it.

    Raises ServiceError FIELD_REQUIRED, INVALID_FIELD, INVALID_DECIMAL; `field` of the metadata says where.
    """
    if not spreads.fields:
        raise ServiceError(
            ErrorReason.FIELD_REQUIRED,
            'say which spreads: {"BTCUSD": {"min_spread": 0.02, "max_spread": 0.05}}',
            metadata={"field": "spreads"},
        )
    if len(spreads.fields) > MAX_MARKETS:
        reject(ErrorReason.BATCH_TOO_LARGE, limit=MAX_MARKETS)
    found: dict[str, dict[str, Decimal]] = {}
    for name, value in sorted(spreads.fields.items()):
        symbol = canonical_symbol(name)
        if symbol in found:
            raise ServiceError(
                ErrorReason.INVALID_FIELD, f"{symbol} stands there twice", metadata={"field": f"spreads.{name}"}
            )
        found[symbol] = _of_market(name, value)
    return found


def _of_market(name: str, value: Value) -> dict[str, Decimal]:
    if value.WhichOneof("kind") != "struct_value" or not value.struct_value.fields:
        raise ServiceError(
            ErrorReason.INVALID_FIELD,
            f"{name} needs an object of {' and '.join(FIELDS)}",
            metadata={"field": f"spreads.{name}"},
        )
    values: dict[str, Decimal] = {}
    for field, number in sorted(value.struct_value.fields.items()):
        where = f"spreads.{name}.{field}"
        if field not in FIELDS:
            raise ServiceError(
                ErrorReason.INVALID_FIELD, f"there is no {field}: {' and '.join(FIELDS)}", metadata={"field": where}
            )
        values[field] = spread(where, _number(where, number))
    return values


def _number(where: str, value: Value) -> Decimal:
    match value.WhichOneof("kind"):
        case "number_value":
            # As it was written: 0.02 is 0.02, not the binary fraction next to it.
            return Decimal(repr(value.number_value))
        case "string_value":
            text = value.string_value
            try:
                decimals_of(text.removeprefix("-"))
            except DecimalError:
                reject(ErrorReason.INVALID_DECIMAL, field=where, value=text)
            return Decimal(text)
        case _:
            raise ServiceError(ErrorReason.INVALID_DECIMAL, f"{where} is not a number", metadata={"field": where})

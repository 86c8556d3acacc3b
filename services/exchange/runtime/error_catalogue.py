"""docs/ERRORS.md, written from the table of errors so that the two cannot differ."""

import json
from typing import Final

from google.protobuf import json_format

# Imported for its descriptors: JSON of a Status needs the types that it packs.
from google.rpc import error_details_pb2  # noqa: F401

from exchange.runtime.error_table import ROWS, ReasonRow
from exchange.runtime.errors import ErrorReason, ServiceError

_HEAD: Final = """# Errors

Generated from `services/exchange/runtime/error_table.py` by `exchange.runtime.error_catalogue.render_error_catalogue`;
`tests/unit/runtime/test_errors.py` holds it fresh. Do not edit.

Every refused call has a gRPC status code, a sentence for people, and a `google.rpc.Status` in the trailing metadata
`grpc-status-details-bin` whose `ErrorInfo` has `domain` "pincex" and one of the reasons below. REST shows the same
`Status` as JSON. In an order session the reason stands in `CommandResult.reason` and the stream goes on. Programs
decide by `reason`; the sentence may change.

- `BadRequest` names the wrong fields of a request, `QuotaFailure` the limit that is used up, `RetryInfo` how long to
  wait before the same request, with the same id, is sent again.
- `x-request-id` in the trailing metadata (a response header over REST) leads to the server's log.
- The values in the examples are made up; a value that a caller sent is cut to 160 bytes.
- A client that gives up sees its own CANCELLED or DEADLINE_EXCEEDED, and a method that a server does not have is
  UNIMPLEMENTED: these come from gRPC itself and carry no reason.
"""

_EXAMPLES: Final = {
    "field": "price",
    "value": "50000.005",
    "tick_size": "0.01",
    "lot_size": "0.0001",
    "symbol": "DOGEUSD",
    "asset": "USD",
    "limit": "1000",
    "left": "0.25",
    "sequence": "1200",
    "head_sequence": "1000",
    "floor_sequence": "500",
    "server_time": "1764093600123",
    "signed": "PINCEX1-HMAC-SHA256\n1764093599000\n6f1c2a\nPOST\n/api/v1/orders\n9b74c989...",
    "timestamp": "1764093000000",
    "window_ms": "5000",
    "address": "203.0.113.7",
    "scope": "trade",
}
_EXAMPLES_OF: Final = {
    ("UNKNOWN_ENUM_VALUE", "field"): "side",
    ("FIELD_REQUIRED", "field"): "symbol",
    ("FIELD_NOT_ALLOWED", "field"): "stop_price",
    ("INVALID_FIELD", "field"): "client_order_id",
    ("INVALID_FIELD", "value"): "no spaces, please",
    ("INVALID_DECIMAL", "value"): "5e4",
    ("NOT_POSITIVE", "value"): "0",
    ("QUANTITY_OFF_LOT", "field"): "quantity",
    ("QUANTITY_OFF_LOT", "value"): "0.00015",
    ("NUMBER_TOO_LARGE", "value"): "99999999999999999999",
    ("QUOTA_EXCEEDED", "limit"): "orders_per_second",
    ("UNKNOWN_ASSET", "asset"): "DOGE",
    ("WITHDRAWAL_LIMIT", "limit"): "10",
    ("TOO_MANY_SUBSCRIPTIONS", "limit"): "200",
    ("PASSWORD_TOO_WEAK", "field"): "password",
}


def example_of(row: ReasonRow) -> ServiceError:
    """Return an error as a service raises it, with every metadata key that the reason promises."""
    metadata = {key: _EXAMPLES_OF.get((row.name, key), _EXAMPLES[key]) for key in row.metadata}
    return ServiceError(ErrorReason.Value(row.name), metadata=metadata)


def render_error_catalogue() -> str:
    """Return the whole of docs/ERRORS.md: a table of all reasons, then an example of each."""
    lines = [_HEAD, "| number | reason | gRPC status | HTTP |", "|---|---|---|---|"]
    lines += [
        f"| {ErrorReason.Value(row.name)} | [{row.name}](#{row.name.lower()}) | {row.code.name} | {row.http_status} |"
        for row in ROWS
    ]
    for row in ROWS:
        lines += ["", *_section(row)]
    return "\n".join(lines) + "\n"


def _section(row: ReasonRow) -> list[str]:
    error = example_of(row)
    body = json_format.MessageToDict(error.to_status(), preserving_proto_field_name=True)
    # A protobuf map has no order of its own.
    if error.metadata:
        body["details"][0]["metadata"] = error.metadata
    return [
        f"## {row.name}",
        "",
        f"{row.message[0].upper()}{row.message[1:]}. gRPC {row.code.name} ({row.code.value[0]}), HTTP {row.http_status}.",
        "",
        "```json",
        json.dumps(body, indent=2, ensure_ascii=False),
        "```",
    ]

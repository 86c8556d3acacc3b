"""JSON to gRPC and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.stack.edge.plan import TYPE, EdgePlan, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

TRANSCODER_FILTER = "envoy.filters.http.grpc_json_transcoder"
TRANSCODER_OFF: Json = {
    "@type": f"{TYPE}envoy.config.route.v3.FilterConfig",
    "disabled": True,
    "config": {"@type": f"{TYPE}google.protobuf.Empty"},
}


def transcoder(plan: EdgePlan, services: Sequence[str]) -> Json:
    """The filter's configuration for these services; for a whole listener, or for one route."""
    return {
        "@type": f"{TYPE}envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(plan.contract.image),
        "services": list(services),
        "convert_grpc_status": True,
        "case_insensitive_enum_parsing": True,
        "query_param_unescape_plus": True,
        "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_SLASH",
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
        "max_request_body_size": plan.limits.rest_body_bytes,
        "max_response_body_size": plan.limits.rest_response_bytes,
        "print_options": {
            "always_print_primitive_fields": True,
            "always_print_enums_as_ints": False,
            "preserve_proto_field_names": True,
            "stream_newline_delimited": True,
        },
    }

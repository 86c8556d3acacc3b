"""REST requests as the client saw them, counted by Envoy itself, its own refusals included.

`exchange.runtime.edge_metrics` knows the names, and makes Prometheus series of them.
"""

from __future__ import annotations

from exchange.runtime.edge_metrics import DURATION_STAT, REQUESTS_STAT, STAT_PREFIX
from exchange.stack.edge.plan import TYPE, Json

# Microseconds; the same bounds as the engine's own latency series.
DURATION_BUCKETS_US = (
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
)

_KNOWN_METHODS = "GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS"
_ORIGINAL_METHOD = "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%"


def rest_loggers(listener: str) -> list[Json]:
    """Two loggers for one listener: a method of the client's invention must not become a series of its own."""
    return [
        _logger(listener, method=_ORIGINAL_METHOD, known=True),
        _logger(listener, method="OTHER", known=False),
    ]


def stats_config() -> Json:
    """Bucket bounds of our histogram; all other statistics keep Envoy's."""
    return {
        "histogram_bucket_settings": [
            {"match": {"prefix": STAT_PREFIX}, "buckets": [float(bound) for bound in DURATION_BUCKETS_US]},
        ],
    }


def _logger(listener: str, *, method: str, known: bool) -> Json:
    tags = [
        {"name": "status", "value_format": "%RESPONSE_CODE%"},
        {"name": "method", "value_format": method},
        {"name": "listener", "value_format": listener},
    ]
    return {
        "name": "envoy.access_loggers.stats",
        "filter": {"and_filter": {"filters": [_is_rest(), _is_known_method(known=known)]}},
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.access_loggers.stats.v3.Config",
            "stats_scope": {"prefix": STAT_PREFIX},
            "counters": [{"stat": {"name": REQUESTS_STAT, "tags": tags}, "value_fixed": 1}],
            "histograms": [
                {
                    "stat": {"name": DURATION_STAT, "tags": tags},
                    "unit": "Microseconds",
                    "value_format": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
                },
            ],
        },
    }


def _is_rest() -> Json:
    # A request without the header (a GET, or one that could not even be parsed) counts: absent is not gRPC.
    not_grpc = {
        "name": "content-type",
        "string_match": {"prefix": "application/grpc"},
        "invert_match": True,
        "treat_missing_header_as_empty": True,
    }
    transcoded = {"name": "x-envoy-original-path", "present_match": True}
    either = [{"header_filter": {"header": header}} for header in (not_grpc, transcoded)]
    return {"or_filter": {"filters": either}}


def _is_known_method(*, known: bool) -> Json:
    header = {
        "name": ":method",
        "string_match": {"safe_regex": {"regex": _KNOWN_METHODS}},
        "invert_match": not known,
        "treat_missing_header_as_empty": True,
    }
    return {"header_filter": {"header": header}}

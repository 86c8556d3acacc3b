"""How many requests a caller may send: a bucket for each user, and for each address that comes without a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.stack.edge.identity import API_KEY_HEADER, CLAIMS, JWT_FILTER
from exchange.stack.edge.plan import TYPE, Json

if TYPE_CHECKING:
    from exchange.stack.edge.plan import Rates

RATE_FILTER = "envoy.filters.http.local_ratelimit"
SIGNED_RATE_FILTER = "pincex.filters.http.signed_rate"
# Callers with a bucket of their own; of more the one seen longest ago starts anew.
KEPT_BUCKETS = 20_000

_LIMIT = f"{TYPE}envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_NOBODY = "-"
# Nothing is limited but by the descriptors.
_UNLIMITED = 1 << 31


def rate_filter(rates: Rates) -> Json:
    """Behind the token filter, whose claims say who calls.

    All tokens and keys of a user draw from one bucket: more keys give no more requests.
    """
    subject: Json = {
        "descriptor_key": "user",
        "metadata_key": {"key": JWT_FILTER, "path": [{"key": CLAIMS}, {"key": "sub"}]},
    }
    # An action that finds nothing ends its list; with a default it finds who is nobody.
    user: Json = {"metadata": subject}
    nobody: Json = {"metadata": {**subject, "default_value": _NOBODY}}
    return {
        "name": RATE_FILTER,
        "typed_config": _limiter(
            "requests",
            actions=[[user], [nobody, {"remote_address": {}}]],
            descriptors=[
                _bucket([{"key": "user", "value": _NOBODY}, {"key": "remote_address"}], rates.unknown),
                _bucket([{"key": "user"}], rates.known),
            ],
        ),
    }


def signed_rate_filter(rates: Rates) -> Json:
    """In front of the gate, which must compute before it knows who calls: signed requests are counted by address there."""
    signed: Json = {
        "header_value_match": {
            "descriptor_key": "signed",
            "descriptor_value": "yes",
            "headers": [{"name": API_KEY_HEADER, "present_match": True}],
        },
    }
    limiter = _limiter(
        "signed",
        actions=[[signed, {"remote_address": {}}]],
        descriptors=[_bucket([{"key": "signed", "value": "yes"}, {"key": "remote_address"}], rates.known)],
    )
    # What the client is told is the rate of the user that it turns out to be.
    return {"name": SIGNED_RATE_FILTER, "typed_config": {**limiter, "enable_x_ratelimit_headers": "OFF"}}


def credentials_route(rates: Rates) -> Json:
    """In place of that, on a route where guessing pays: few from each address, whoever it is."""
    return _limiter(
        "credentials",
        actions=[[{"remote_address": {}}]],
        descriptors=[_bucket([{"key": "remote_address"}], rates.credentials)],
    )


def _limiter(name: str, *, actions: list[list[Json]], descriptors: list[Json]) -> Json:
    always: Json = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "@type": _LIMIT,
        "stat_prefix": name,
        "token_bucket": {"max_tokens": _UNLIMITED, "tokens_per_fill": _UNLIMITED, "fill_interval": "1s"},
        "filter_enabled": {**always, "runtime_key": f"edge.{name}_enabled"},
        "filter_enforced": {**always, "runtime_key": f"edge.{name}_enforced"},
        "rate_limits": [{"actions": each} for each in actions],
        "descriptors": descriptors,
        "max_dynamic_descriptors": KEPT_BUCKETS,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "rate_limited_as_resource_exhausted": True,
    }


def _bucket(entries: list[Json], per_second: int) -> Json:
    bucket = {"max_tokens": per_second, "tokens_per_fill": per_second, "fill_interval": "1s"}
    return {"entries": entries, "token_bucket": bucket}

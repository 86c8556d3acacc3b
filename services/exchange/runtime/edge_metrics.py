"""REST requests as clients saw them, from Envoy's statistics to the names that dashboards use.

Envoy counts each REST request when it has answered it, its own refusals included, under the names below. Prometheus
gets `http_requests_total{status,method,listener}` and the histogram `http_request_duration_seconds` with the same
labels, in seconds. The histogram's sum is Envoy's estimate from its buckets; the counts are exact.

Of the certificates that Envoy uses it also says when they expire: `pincex_certificate_expiry_seconds{certificate}`, in Unix
time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What Envoy calls them: <prefix>.<name>, and in its Prometheus text envoy_<prefix>_<name>.
STAT_PREFIX = "pincex_edge"
REQUESTS_STAT = "http_requests"
DURATION_STAT = "http_request_duration"
# Asks Envoy's /stats/prometheus for these series only.
STATS_QUERY = f"usedonly&filter=^({STAT_PREFIX}[.]|(listener|cluster)[.].*[.]ssl[.]certificate[.])"
EXPIRY_SERIES = "pincex_certificate_expiry_seconds"

_MICROSECONDS = 1_000_000
_LINE = re.compile(
    rf"envoy_{STAT_PREFIX}_(?P<name>{REQUESTS_STAT}|{DURATION_STAT})(?P<suffix>_bucket|_sum|_count)?"
    r"\{(?P<labels>[^}]*)\} (?P<value>\S+)",
)
_EXPIRY = re.compile(
    r"envoy_(?:listener|cluster)_ssl_certificate_expiration_unix_time_seconds"
    r'\{(?:.*,)?envoy_tls_certificate="(?P<certificate>[^"]+)".*\} (?P<time>\d+)',
)
_BOUND = re.compile(r'le="(?P<bound>[0-9.e+]+)"')


@dataclass(frozen=True, slots=True)
class _Series:
    kind: str
    name: str
    help: str


_SERIES = {
    REQUESTS_STAT: _Series("counter", "http_requests_total", "REST requests by the status that the client got."),
    DURATION_STAT: _Series(
        "histogram",
        "http_request_duration_seconds",
        "From the first byte of a REST request to the last of its answer.",
    ),
}


def edge_metrics(prometheus_text: str) -> str:
    """Translates Envoy's Prometheus text (any of its series may be there) into ours; "" if ours are not in it.

    Bounds and sums come in microseconds and leave in seconds. A line that does not have the expected form is left out:
    a scrape must not fail for one series.
    """
    found: dict[str, list[str]] = {name: [] for name in _SERIES}
    for line in prometheus_text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        suffix = match["suffix"] or ""
        if (match["name"] == DURATION_STAT) == bool(suffix):
            found[match["name"]].append(_sample(match["name"], suffix, match["labels"], match["value"]))
    lines: list[str] = []
    for stat, samples in found.items():
        if samples:
            series = _SERIES[stat]
            lines += [f"# HELP {series.name} {series.help}", f"# TYPE {series.name} {series.kind}", *samples]
    return "".join(f"{line}\n" for line in (*lines, *_expiries(prometheus_text)))


def _expiries(prometheus_text: str) -> list[str]:
    """One sample for each certificate, wherever Envoy uses it: the earliest end of a set of authorities."""
    ends: dict[str, int] = {}
    for match in _EXPIRY.finditer(prometheus_text):
        name, end = match["certificate"], int(match["time"])
        ends[name] = min(end, ends.get(name, end))
    if not ends:
        return []
    samples = (f'{EXPIRY_SERIES}{{certificate="{name}"}} {end}' for name, end in sorted(ends.items()))
    said = "When a certificate of the edge expires, in Unix time."
    return [f"# HELP {EXPIRY_SERIES} {said}", f"# TYPE {EXPIRY_SERIES} gauge", *samples]


def _sample(stat: str, suffix: str, labels: str, value: str) -> str:
    if suffix == "_sum":
        value = _seconds(value)
    elif suffix == "_bucket":
        labels = _BOUND.sub(lambda match: f'le="{_seconds(match["bound"])}"', labels)
    return f"{_SERIES[stat].name}{suffix}{{{labels}}} {value}"


def _seconds(microseconds: str) -> str:
    return f"{float(microseconds) / _MICROSECONDS:g}" if microseconds != "+Inf" else microseconds

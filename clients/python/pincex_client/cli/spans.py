"""Spans of time as people type them."""

import re
from datetime import timedelta

_SPAN = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def span(text: str) -> timedelta:
    """`90s`, `15m`, `12h` or `30d`. Raises ValueError."""
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no span of time: a number and s, m, h or d, such as 12h")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def optional_span(text: str) -> timedelta | None:
    """The same; None for nothing."""
    return span(text) if text else None

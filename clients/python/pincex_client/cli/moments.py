"""Moments as people type them."""

from datetime import UTC, datetime

import typer

from pincex_client.cli.context import settings_of, usage_error


def moment(context: typer.Context, text: str) -> datetime | None:
    """A date or a time of ISO 8601, UTC unless it names another zone; None for nothing. Ends the process where it is none."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        usage_error(settings_of(context), f"{text!r} is no time: such as 2026-01-31 or 2026-01-31T12:00:00Z")
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)

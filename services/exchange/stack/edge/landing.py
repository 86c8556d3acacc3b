"""What `/` of the public edge answers until the web app is there: the way to everything else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPENAPI = "/api/v1/openapi.json"
_STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem}code{font-size:.9em}"


def landing_json(paths: Sequence[str]) -> dict[str, object]:
    """The REST paths (each `"GET /api/v1/..."`) and where their description is."""
    return {"name": "PinCEX", "openapi": _OPENAPI, "health": "/api/v1/health", "paths": list(paths)}


def landing_html(paths: Sequence[str]) -> str:
    """The same as a page for people."""
    items = "".join(f"<li><code>{escape(path)}</code></li>" for path in paths)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>PinCEX</title>'
        f"<style>{_STYLE}</style></head><body><h1>PinCEX</h1>"
        f'<p>An exchange. It speaks REST, gRPC and gRPC-Web on this port: <a href="{_OPENAPI}">OpenAPI</a>, '
        '<a href="/api/v1/health">health</a>.</p>'
        f"<h2>REST</h2><ul>{items}</ul></body></html>\n"
    )

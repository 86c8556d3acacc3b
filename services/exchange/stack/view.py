"""What the stack's commands print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

# Into a pipe or a file go whole lines, however wide.
_WIDE = None if sys.stdout.isatty() else 400
_out = Console(highlight=False, soft_wrap=True, width=_WIDE)
_err = Console(stderr=True, highlight=False, soft_wrap=True)
_MARKS = {"ready": "[green]ok[/]", "restarting": "[yellow]restarting[/]", "stopped": "stopped"}
_STYLES = {"ready": "green", "restarting": "yellow", "starting": "yellow", "waiting": "dim", "stopping": "dim"}

_SECURE = (("the same over TLS", "tls_url"), ("with a client certificate", "mtls_url"))


def say(text: str) -> None:
    """One line for people."""
    _out.print(escape(text))


def raw(text: str) -> None:
    """Text as it is, for scripts and logs."""
    sys.stdout.write(f"{text}\n")


def error(text: str) -> None:
    """What failed, on standard error."""
    _err.print(f"[red]error:[/] {escape(text)}")


def warning(text: str) -> None:
    """What may not be meant, on standard error."""
    _err.print(f"[yellow]warning:[/] {escape(text)}")


def starting(home: Path, *, memory: bool) -> None:
    """Before the first service starts."""
    kept = "nothing is kept" if memory else f"data in {home}"
    _out.print(f"starting the exchange ({escape(kept)})")


def stopped() -> None:
    """After the last service has ended."""
    _out.print("the exchange is stopped")


def event(found: dict[str, Any]) -> None:
    """One event of the supervisor, as it comes."""
    if found["event"] == "up":
        addresses(found["status"])
    elif found["event"] == "instance" and found["state"] in _MARKS:
        pid = f"pid {found['pid']}" if found["pid"] else ""
        _out.print(f"  {found['name']:<20} {_MARKS[found['state']]}  [dim]{found['seconds']:.1f} s  {pid}[/]")
    elif found["event"] == "certificates":
        _out.print(f"  [dim]{escape(found['text'])}[/]")
    elif found["event"] == "database":
        style = "yellow" if found["degraded"] else "dim"
        _out.print(f"  [{style}]{escape(found['text'])}[/]")


def addresses(status: dict[str, Any]) -> None:
    """Where to go now."""
    edge, ops = status["edge_url"], status["ops_url"]
    rows = (
        ("REST, gRPC, gRPC-Web", edge),
        *((what, status[name]) for what, name in _SECURE if status.get(name)),
        ("operators", f"{ops}/admin/..., {ops}/metrics"),
        ("debug", f"{status['debug_url']}/debug/pprof/heap"),
        ("Envoy's admin", status["envoy_admin_url"]),
    )
    _out.print("the exchange is up:")
    for what, address in rows:
        _out.print(f"  {what:<25} {address}")
    _out.print(f"try: curl {edge}/api/v1/health")
    if status.get("note"):
        _out.print(f"[yellow]note:[/] {escape(status['note'])}")


def first_login(email: str, password: str) -> None:
    """How the operator logs in; shown once."""
    _out.print("the operator's account was made. Its password is shown this once, and kept nowhere:")
    _out.print(f"  user      {email}")
    _out.print(f"  password  {escape(password)}")
    _out.print(f"  log in    pincex login {email}")


def table(status: dict[str, Any]) -> None:
    """One row for each instance, then the addresses."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NAME", "SERVICE", "ROLE", "STATE", "PID", "RESTARTS", "PORTS"):
        shown.add_column(column, no_wrap=True)
    for row in status["services"]:
        style = _STYLES.get(row["state"], "")
        ports = " ".join(f"{name}:{port}" for name, port in row["ports"].items())
        state = f"[{style}]{row['state']}[/]" if style else row["state"]
        cells = (row["name"], row["service"], row["role"], state, str(row["pid"] or "-"), str(row["restarts"]), ports)
        shown.add_row(*cells)
    _out.print(shown)
    if "database" in status:
        _pair(status["database"])
    if status["state"] == "running":
        addresses(status)
    else:
        _out.print(f"the exchange is {status['state']}")


def _pair(database: dict[str, Any]) -> None:
    told = f"{database['primary']} is the primary (epoch {database['epoch']}), its standby is {database['standby']}"
    _out.print(f"[yellow]DEGRADED: {told}, nothing would take its place[/]" if database["degraded"] else told)

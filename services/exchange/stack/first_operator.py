"""The first operator: the auth service makes its account at the first start and leaves the password for whoever started it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# As in `exchange.auth.bootstrap`; services import nothing of one another.
OPERATOR_EMAIL = "operator@localhost"
PASSWORD_FILE = "operator-password"  # noqa: S105 - a file's name


def take_operator_password(home: Path) -> str | None:
    """The password, once: the file is gone when this returns. None where no account was made, or somebody has it already."""
    file = home / "secrets" / PASSWORD_FILE
    try:
        password = file.read_text().strip()
        file.unlink()
    except FileNotFoundError:
        return None
    return password or None

"""The first operator's password is shown once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.stack.first_operator import PASSWORD_FILE, take_operator_password

if TYPE_CHECKING:
    from pathlib import Path


def test_the_password_is_taken_once_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / PASSWORD_FILE).write_text("horse battery\n")

    assert take_operator_password(tmp_path) == "horse battery"
    assert list(folder.iterdir()) == []
    assert take_operator_password(tmp_path) is None


def test_where_no_account_was_made_there_is_nothing_to_show(tmp_path: Path) -> None:
    assert take_operator_password(tmp_path) is None

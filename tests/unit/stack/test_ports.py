"""Which ports the stack takes."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from exchange.stack.config import PortSetting
from exchange.stack.errors import StackError
from exchange.stack.ports import FREE_RANGE, PortBook, is_free

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANY = PortSetting("PINCEX_EDGE_PORT", "the public edge", 0)


@contextmanager
def listening(port: int = 0) -> Iterator[int]:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        yield server.getsockname()[1]


def test_a_free_port_is_remembered_for_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"

    port = PortBook(file).choose("edge", ANY)

    assert port in FREE_RANGE
    assert PortBook(file).choose("edge", ANY) == port


def test_a_remembered_port_that_another_process_took_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    port = PortBook(file).choose("edge", ANY)

    with listening(port):
        assert PortBook(file).choose("edge", ANY) != port


def test_the_operators_port_that_is_taken_is_refused_with_the_variable_that_changes_it(tmp_path: Path) -> None:
    with listening() as port:
        setting = PortSetting("PINCEX_EDGE_PORT", "the public edge", port)
        with pytest.raises(StackError, match=rf"port {port} \(the public edge\) is taken .* PINCEX_EDGE_PORT"):
            PortBook(tmp_path / "ports.json").choose("edge", setting)


def test_one_port_is_never_given_to_two(tmp_path: Path) -> None:
    book = PortBook(tmp_path / "ports.json")
    port = book.choose("edge", ANY)

    with pytest.raises(StackError, match="used twice"):
        book.choose("ops", PortSetting("PINCEX_OPS_PORT", "the ops listener", port))
    assert len({book.choose(str(number), ANY) for number in range(50)} | {port}) == 51


def test_a_damaged_memory_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("[1, 2")

    assert PortBook(tmp_path / "ports.json").choose("edge", ANY) in FREE_RANGE


def test_a_listening_port_is_not_free() -> None:
    with listening() as port:
        assert not is_free(port)
    assert is_free(port)

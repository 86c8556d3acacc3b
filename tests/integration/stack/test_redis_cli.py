"""Our `redis-cli`: answers look as the original's, on a terminal and in a pipe."""

from __future__ import annotations

import pytest

from exchange.stack.redis_cli import main
from tests.valkey_fixture import ValkeyServer

PRETTY = [
    (("ping",), '"PONG"'),
    (("llen", "list"), "(integer) 2"),
    (("get", "nothing"), "(nil)"),
    (("lrange", "list", "0", "-1"), '1) "one"\n2) "two"'),
    (("lrange", "nothing", "0", "-1"), "(empty array)"),
    (("cluster", "info"), "(error) ERR This instance has cluster support disabled"),
]
BARE = [
    ((), "PONG"),
    (("llen", "list"), "2"),
    (("get", "nothing"), ""),
    (("lrange", "list", "0", "-1"), "one\ntwo"),
    (("cluster", "info"), "ERR This instance has cluster support disabled"),
]


@pytest.fixture
def asked(valkey: ValkeyServer) -> list[str]:
    with valkey.client() as client:
        client.rpush("list", "one", "two")
    return ["-p", str(valkey.port)]


def test_answers_look_as_the_original_prints_them(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for command, expected in PRETTY:
        assert main([*asked, "--no-raw", *command]) == 0
        assert capsys.readouterr().out == f"{expected}\n", command
    for command, expected in BARE:
        assert main([*asked, *command]) == 0
        assert capsys.readouterr().out == f"{expected}\n", command
    assert main([*asked, "info", "server"]) == 0
    assert "redis_version:" in capsys.readouterr().out


def test_an_error_of_the_server_is_a_failure_only_where_that_is_asked_for(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*asked, "-e", "get"]) == 1
    assert "wrong number of arguments" in capsys.readouterr().out
    assert main(["-u", f"redis://127.0.0.1:{asked[1]}/3", "-e", "llen", "list"]) == 0
    assert capsys.readouterr().out == "0\n"


def test_nobody_there_is_a_failure(valkey: ValkeyServer, capsys: pytest.CaptureFixture[str]) -> None:
    valkey.kill()
    assert main(["-p", str(valkey.port), "ping"]) == 1
    assert "Could not connect" in capsys.readouterr().err

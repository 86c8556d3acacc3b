"""Log lines: their form, and what they never show."""

import contextvars
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from exchange.runtime.logging import _ToStructlog, configure_logging, redact_text
from exchange.runtime.principal import Principal
from exchange.runtime.request import RequestContext, set_request_context


class Log(io.BytesIO):
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def last(self) -> dict[str, Any]:
        return self.lines()[-1]


@pytest.fixture
def log() -> Iterator[Log]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = Log()
    configure_logging(service="wallet", instance="wallet-1", level="INFO", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_line_is_json_with_service_and_instance(log):
    structlog.get_logger("part").info("it happened", orders=3)
    line = log.last()
    assert line["event"] == "it happened"
    assert line["orders"] == 3
    assert (line["service"], line["instance"], line["level"]) == ("wallet", "wallet-1", "info")
    assert line["timestamp"].endswith("Z")


def test_the_level_holds(log):
    structlog.get_logger().debug("not this")
    logging.getLogger("grpc").debug("nor this")
    assert log.lines() == []
    assert not structlog.get_logger().is_enabled_for(logging.DEBUG)
    with pytest.raises(KeyError):
        configure_logging(service="s", instance="i", level="LOUD")


def test_the_request_is_bound(log):
    def within_a_call() -> None:
        set_request_context(
            RequestContext("r-1", Principal("alice", frozenset(), "development"), None, "S/M", "ipv4:127.0.0.1:1")
        )
        structlog.get_logger().info("inside")

    contextvars.Context().run(within_a_call)
    assert (log.last()["request_id"], log.last()["account"]) == ("r-1", "alice")
    structlog.get_logger().info("outside")
    assert "request_id" not in log.last()


def test_the_standard_library_speaks_the_same_form(log):
    try:
        raise ValueError("oh")
    except ValueError:
        logging.getLogger("grpc._cython").exception("failed %s", "here")
    line = log.last()
    assert (line["event"], line["logger"], line["level"]) == ("failed here", "grpc._cython", "error")
    assert "ValueError: oh" in line["exception"]


def test_a_record_whose_arguments_do_not_fit_is_logged_all_the_same(log):
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "%d", ("not a number",), None)
    (ours,) = [each for each in logging.getLogger().handlers if isinstance(each, _ToStructlog)]
    ours.emit(record)
    assert log.last()["event"] == "%d"


def test_a_long_text_is_cut(log):
    structlog.get_logger().info("x", body="y" * 1_000_000)
    assert log.last()["body"].endswith("... (1000000 characters)")
    assert len(log.getvalue()) < 20_000


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Authorization",
        "password",
        "db_password",
        "JWT_SECRET",
        "access_token",
        "x-api-key",
        "Set-Cookie",
    ],
)
def test_keys_that_name_a_secret_are_cut_at_any_depth(log, key):
    structlog.get_logger().info("x", **{key: "swordfish"}, deep={"list": [{key: "swordfish"}]}, pair=({key: 1},))
    assert b"swordfish" not in log.getvalue()
    assert log.last()[key] == "[redacted]"
    assert log.last()["deep"]["list"][0][key] == "[redacted]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://pincex:swordfish@db/pincex", "postgresql://pincex:[redacted]@db/pincex"),
        ("two redis://:swordfish@a and http://u:swordfish@b/", "two redis://:[redacted]@a and http://u:[redacted]@b/"),
        ("postgresql://u:sword@fish@db/x", "postgresql://u:[redacted]@db/x"),
        ("postgresql://u:sword/fish@db/x", "postgresql://u:[redacted]@db/x"),
        ("host=db password=swordfish user=x", "host=db password=[redacted] user=x"),
        ("host=db password='sword fish' user=x", "host=db password=[redacted] user=x"),
        ("Authorization: Bearer sword.fish-1", "Authorization: Bearer [redacted]"),
        ("http://host:8080/path", "http://host:8080/path"),
        ("mail a@b", "mail a@b"),
    ],
)
def test_passwords_inside_texts_are_cut(text, shown):
    assert redact_text(text) == shown


def test_exceptions_are_cut_too(log):
    try:
        raise OSError("cannot reach postgresql://pincex:swordfish@db/pincex")
    except OSError as error:
        structlog.get_logger().error("x", exc_info=True)
        structlog.get_logger().error("x", exc_info=error, error=error)
    assert b"swordfish" not in log.getvalue()
    assert "OSError" in log.lines()[0]["exception"]
    assert "OSError" in log.lines()[1]["exception"]


def test_what_json_does_not_know_never_fails_a_line(log):
    deep: Any = "end"
    for _ in range(50):
        deep = [deep]
    structlog.get_logger().info("x", thing=object(), big=2**80, lone="\ud800", keys={1: 2}, deep=deep, raw=b"\xff")
    assert log.last()["big"] == 2**80
    assert log.last()["event"] == "x"


def test_a_reader_that_is_gone_does_not_stop_the_service():
    class Gone:
        def write(self, data: bytes) -> None:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    configure_logging(service="s", instance="i", stream=Gone())
    try:
        structlog.get_logger().info("nobody hears")
    finally:
        structlog.reset_defaults()
        root = logging.getLogger()
        root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, _ToStructlog)]

"""Logs: one JSON object a line on standard output, with service, instance and request id, secrets cut out.

Call `configure_logging` once at start-up, then `structlog.get_logger("part")` anywhere. Records of the standard
library (grpc, asyncio, aiohttp) come out in the same form.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any, Final, Protocol

import orjson
import structlog

from exchange.runtime.request import request_context

_REDACTED: Final = "[redacted]"
_SECRET_WORDS: Final = ("authorization", "password", "passwd", "secret", "token", "api_key", "apikey", "cookie")
_MAX_DEPTH: Final = 6
_MAX_TEXT: Final = 16_384
# `scheme://user:password@host` and libpq's `password=...`: in any text, exceptions included.
# Rather too much is cut than too little: up to the last @ before a space, as passwords may hold @ and / unescaped.
_URL_PASSWORD: Final = re.compile(r"(://[^\s/:@]*:)[^\s\"']+(@)")
_DSN_PASSWORD: Final = re.compile(r"(\bpassword\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s'\"]+)", re.IGNORECASE)
_BEARER: Final = re.compile(r"(\bbearer\s+)[A-Za-z0-9._~+/=-]+", re.IGNORECASE)

LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
}


class ByteStream(Protocol):
    """Where the lines go."""

    def write(self, data: bytes, /) -> object:
        """Take one or more lines."""
        ...

    def flush(self) -> object:
        """Hand them on."""
        ...


def configure_logging(*, service: str, instance: str, level: str = "INFO", stream: ByteStream | None = None) -> None:
    """Set up structlog and the standard library's root logger. Raises KeyError for a level that is none."""
    number = LEVELS[level]
    output = _LineLogger(stream if stream is not None else sys.stdout.buffer)
    identity = {"service": service, "instance": instance}

    def add_identity(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.update(identity)
        return event

    structlog.reset_defaults()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_request,
            add_identity,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            format_exception,
            redact,
            render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=output.named,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _ToStructlog)]:
        root.removeHandler(handler)
    root.addHandler(_ToStructlog())
    root.setLevel(number)


def add_request(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add `request_id` and `account` of the call that runs now, unless the line has its own."""
    call = request_context()
    if call.request_id:
        event.setdefault("request_id", call.request_id)
        if call.principal.account:
            event.setdefault("account", call.principal.account)
    return event


def format_exception(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Turn `exc_info` into the text `exception`."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = "".join(traceback.format_exception(error)).rstrip()
    return event


def redact(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Cut out values whose key names a secret, at any depth, and passwords inside texts."""
    for key, value in event.items():
        event[key] = _REDACTED if _names_secret(key) else _redacted(value, 0)
    return event


def render_json(_logger: object, _method: str, event: structlog.typing.EventDict) -> bytes:
    """Return the line; what JSON does not know is shown by its str()."""
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):
        # Lone surrogates, integers above 64 bits: rare, and a log line must never fail a call.
        return json.dumps(event, default=str, skipkeys=True).encode("ascii")


class _LineLogger:
    """What structlog writes to: a whole line at once, so that lines of threads do not mix."""

    def __init__(self, stream: ByteStream, name: str = "") -> None:
        self._stream = stream
        self.name = name

    def named(self, *names: str) -> "_LineLogger":
        return _LineLogger(self._stream, names[0] if names else "")

    def msg(self, line: bytes) -> None:
        try:
            self._stream.write(line + b"\n")
            self._stream.flush()
        except (OSError, ValueError):
            # The reader of our output is gone: serving goes on without a log rather than not at all.
            return

    debug = info = warning = error = critical = exception = log = msg


class _ToStructlog(logging.Handler):
    """Hands records of the standard library to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        logger.log(max(record.levelno, logging.DEBUG), message, exc_info=record.exc_info, logger=record.name)


@lru_cache(maxsize=2048)
def _names_secret(key: str) -> bool:
    normal = str(key).lower().replace("-", "_")
    return any(word in normal for word in _SECRET_WORDS)


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if depth >= _MAX_DEPTH:
        return "[too deep]" if isinstance(value, (MutableMapping, list, tuple)) else value
    if isinstance(value, MutableMapping):
        return {
            key: _REDACTED if _names_secret(str(key)) else _redacted(item, depth + 1) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redacted(item, depth + 1) for item in value]
    if isinstance(value, BaseException):
        return redact_text(repr(value))
    return value


def redact_text(text: str) -> str:
    """Cut passwords of URLs and DSNs, and bearer tokens, out of a text, and what is beyond 16 KiB."""
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}... ({len(text)} characters)"
    if "://" in text and "@" in text:
        text = _URL_PASSWORD.sub(rf"\1{_REDACTED}\2", text)
    lower = text.lower()
    if "password" in lower:
        text = _DSN_PASSWORD.sub(rf"\1{_REDACTED}", text)
    if "bearer" in lower:
        text = _BEARER.sub(rf"\1{_REDACTED}", text)
    return text

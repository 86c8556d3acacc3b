"""`redis-cli`: what the runbooks ask of Valkey, typed as they print it.

The wheel brings the server alone. One command a call, `redis-cli llen market_data_queue`; to the Valkey of the running
exchange unless `-u`, or `-h` and `-p`, say otherwise. On a terminal answers look as the original prints them, `(integer) 3`;
elsewhere, or with `--raw`, they are bare. Like the original it ends with 0 for an error that the server gives, and with 1 under `-e`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.exceptions import RedisError, ResponseError

from exchange.stack.config import load_config
from exchange.stack.control import request
from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_S: Final = 5.0
DEFAULT_URL: Final = "redis://127.0.0.1:6379/0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 where nobody answers, or under -e for an error; 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    pretty = options.no_raw or (sys.stdout.isatty() and not options.raw)
    try:
        answer = _ask(_url(options), options.command, options.password or os.environ.get("REDISCLI_AUTH"))
    except ResponseError as error:
        sys.stdout.write(f"(error) {_said(error)}\n" if pretty else f"{_said(error)}\n")
        return 1 if options.errors else 0
    except (RedisError, OSError, ValueError) as error:
        sys.stderr.write(f"Could not connect to Redis: {error}\n")
        return 1
    sys.stdout.write(("\n".join(_pretty(answer)) if pretty else _bare(answer)) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    # `-h` is the host, as the original has it.
    parser = argparse.ArgumentParser(
        prog="redis-cli", description="Ask the exchange's Valkey one thing.", add_help=False
    )
    parser.add_argument("--help", action="help", help="show this")
    parser.add_argument("-u", dest="url", help="redis://[:password@]host:port/database")
    parser.add_argument("-h", dest="host", help="host; default: of the running exchange")
    parser.add_argument("-p", dest="port", type=int, help="port")
    parser.add_argument("-a", dest="password", help="password; better in REDISCLI_AUTH")
    parser.add_argument("-n", dest="database", type=int, help="number of the database")
    parser.add_argument("-e", dest="errors", action="store_true", help="end with 1 where the server gives an error")
    parser.add_argument("--raw", action="store_true", help="bare answers on a terminal too")
    parser.add_argument("--no-raw", action="store_true", help="answers as on a terminal everywhere")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="such as: llen market_data_queue")
    return parser


def _url(options: argparse.Namespace) -> str:
    """Where to ask: as the command line says, else the running exchange, else REDIS_URL, else Redis' own default."""
    if options.url:
        return str(options.url)
    if options.host or options.port:
        return f"redis://{options.host or '127.0.0.1'}:{options.port or 6379}/{options.database or 0}"
    try:
        return str(request(load_config(os.environ, Path.cwd()).home, "status")["redis_url"])
    except (StackError, OSError, KeyError):
        return os.environ.get("REDIS_URL") or DEFAULT_URL


def _ask(url: str, command: Sequence[str], password: str | None) -> Any:
    """The answer as the protocol has it: bytes, numbers, lists, None. Raises RedisError."""
    client = redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, **({"password": password} if password else {})
    )
    with client:
        connection = client.connection_pool.get_connection()
        connection.send_command(*(command or ("PING",)))  # type: ignore[no-untyped-call]  # it has no hints
        return connection.read_response(disable_decoding=True)


def _said(error: ResponseError) -> str:
    """The error as the server said it: the library takes the code ERR away, and leaves most others."""
    text = str(error)
    return text if text.partition(" ")[0].isupper() else f"ERR {text}"


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _bare(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(_bare(item) for item in value)
    return "" if value is None else _text(value).rstrip("\n")


def _pretty(value: Any, indent: str = "") -> list[str]:
    """Lines as the original prints them on a terminal."""
    match value:
        case None:
            return ["(nil)"]
        case int():
            return [f"(integer) {value}"]
        case list() if not value:
            return ["(empty array)"]
        case list():
            lines = []
            for number, item in enumerate(value, start=1):
                head = f"{number}) "
                first, *rest = _pretty(item, indent + " " * len(head))
                lines += [(indent if number > 1 else "") + head + first, *rest]
            return lines
        case _:
            text = _text(value)
            # What has lines of its own is shown as it is.
            return [text.rstrip("\r\n")] if "\n" in text else [f'"{text}"']


if __name__ == "__main__":
    raise SystemExit(main())

"""The environment, read once at start-up into typed values; no service reads os.environ anywhere else.

Each service's `__main__.py` builds its own frozen `Config` from an `Environment`. A wrong or missing variable is a
`ConfigError` whose text names the variable and what it should be, ready to be shown to the person who starts it.
"""

import hmac
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, overload

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "WARN", "ERROR")
# Where containers keep logs; `pincex up` keeps them in its data folder.
_LOG_DIR: Final = Path("/var/log/pincex")
DEVELOPMENT: Final = "development"
PRODUCTION: Final = "production"
T = TypeVar("T")


class ConfigError(Exception):
    """A variable is missing or wrong; the text names it and never repeats a secret."""


class Secret:
    """A value that no repr, log line or traceback shows; `reveal()` gives it to the code that needs it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)


class Environment:
    """Typed reading of variables. An empty variable counts as absent."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {name: value.strip() for name, value in values.items() if value.strip()}

    @classmethod
    def load(cls, dotenv: Path | None = None) -> "Environment":
        """Read the process's environment, and under it the file `dotenv` (default `.env` here) if it is there.

        Raises ConfigError for a line of the file that is no assignment, naming file and line.
        """
        path = dotenv if dotenv is not None else Path(".env")
        values = read_dotenv(path) if path.is_file() else {}
        return cls({**values, **os.environ})

    def required(self, name: str) -> str:
        """Return a text. Raises ConfigError where it is absent."""
        value = self._values.get(name)
        if value is None:
            raise ConfigError(f"{name} is not set")
        return value

    @overload
    def optional(self, name: str) -> str | None: ...
    @overload
    def optional(self, name: str, default: str) -> str: ...
    def optional(self, name: str, default: str | None = None) -> str | None:
        """Return a text, or the default where it is absent."""
        return self._values.get(name, default)

    def choice(self, name: str, default: str, choices: Collection[str]) -> str:
        """Return one of `choices`, whatever its case. Raises ConfigError for another text."""
        value = self._values.get(name, default)
        for choice in choices:
            if value.lower() == choice.lower():
                return choice
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")

    def integer(
        self, name: str, default: int | None = None, *, minimum: int | None = None, maximum: int | None = None
    ) -> int:
        """Return a whole number in [minimum, maximum]. Raises ConfigError; without a default it is required."""
        text = self._values.get(name)
        if text is None:
            return _absent(name, default)
        try:
            value = int(text)
        except ValueError:
            raise ConfigError(f"{name} is {text!r}; it must be a whole number") from None
        _check_range(name, value, minimum, maximum)
        return value

    def number(
        self, name: str, default: float | None = None, *, minimum: float | None = None, maximum: float | None = None
    ) -> float:
        """Return a finite number in [minimum, maximum]. Raises ConfigError; without a default it is required."""
        text = self._values.get(name)
        if text is None:
            return _absent(name, default)
        try:
            value = float(text)
        except ValueError:
            raise ConfigError(f"{name} is {text!r}; it must be a number") from None
        if value - value != 0.0:
            raise ConfigError(f"{name} is {text!r}; it must be a finite number")
        _check_range(name, value, minimum, maximum)
        return value

    def boolean(self, name: str, default: bool | None = None) -> bool:  # noqa: FBT001 - the value itself is a flag
        """Return true/false, 1/0, yes/no or on/off. Raises ConfigError; without a default it is required."""
        text = self._values.get(name)
        if text is None:
            return _absent(name, default)
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise ConfigError(f"{name} is {text!r}; it must be true or false")

    def path(self, name: str, default: Path | None = None) -> Path:
        """Return a path with `~` expanded. Raises ConfigError; without a default it is required."""
        text = self._values.get(name)
        if text is None:
            return _absent(name, default)
        return Path(text).expanduser()

    def secret(self, name: str, *, minimum_length: int = 1) -> Secret:
        """Return a required secret. Raises ConfigError where it is absent or too short, without showing it."""
        value = self.required(name)
        if len(value) < minimum_length:
            raise ConfigError(f"{name} has {len(value)} characters; it must have at least {minimum_length}")
        return Secret(value)

    def optional_secret(self, name: str) -> Secret | None:
        """Return a secret, or None where it is absent."""
        value = self._values.get(name)
        return None if value is None else Secret(value)

    def database_url(self, name: str) -> Secret:
        """Return the URL of a service's own role, else DATABASE_URL. Raises ConfigError where neither is set."""
        url = self.optional_secret(name) or self.optional_secret("DATABASE_URL")
        if url is None:
            raise ConfigError(f"{name} is not set, and neither is DATABASE_URL")
        return url


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """What every service needs to know about where it runs."""

    service: str
    instance: str
    profile: str
    log_level: str
    debug_port: int | None
    tracemalloc_frames: int
    log_dir: Path

    @property
    def development(self) -> bool:
        """Whether anonymous calls from this machine are let in (DESIGN section 5)."""
        return self.profile == DEVELOPMENT

    @classmethod
    def read(cls, environment: Environment, service: str) -> "RuntimeConfig":
        """Read PINCEX_INSTANCE, PINCEX_PROFILE, LOG_LEVEL, PINCEX_LOG_DIR, PINCEX_DEBUG_PORT, PINCEX_TRACEMALLOC_FRAMES.

        Without PINCEX_PROFILE the profile is production: what lets anonymous callers in must be said.
        Raises ConfigError.
        """
        debug_port = environment.integer("PINCEX_DEBUG_PORT", 0, minimum=0, maximum=65535)
        return cls(
            service=service,
            instance=environment.optional("PINCEX_INSTANCE", f"{service}-{socket.gethostname()}-{os.getpid()}"),
            profile=environment.choice("PINCEX_PROFILE", PRODUCTION, (DEVELOPMENT, PRODUCTION)),
            log_level=environment.choice("LOG_LEVEL", "INFO", _LOG_LEVELS),
            debug_port=debug_port or None,
            tracemalloc_frames=environment.integer("PINCEX_TRACEMALLOC_FRAMES", 0, minimum=0, maximum=64),
            log_dir=environment.path("PINCEX_LOG_DIR", _LOG_DIR),
        )


def read_dotenv(path: Path) -> dict[str, str]:
    """Read `NAME=value` lines: `#` comments, an optional `export`, single or double quotes around the value.

    Nothing is expanded. Raises ConfigError naming file and line.
    """
    values: dict[str, str] = {}
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise ConfigError(f"{path}:{number} is not NAME=value")
        values[name] = _unquote(value.strip(), f"{path}:{number}")
    return values


def _absent(name: str, default: T | None) -> T:
    if default is None:
        raise ConfigError(f"{name} is not set")
    return default


def _unquote(value: str, where: str) -> str:
    if value[:1] in {'"', "'"}:
        closing = value.find(value[0], 1)
        rest = value[closing + 1 :].strip()
        if closing < 0 or (rest and not rest.startswith("#")):
            raise ConfigError(f"{where} has a quote that does not close the value")
        return value[1:closing]
    return value.partition(" #")[0].rstrip()


def _check_range(name: str, value: float, minimum: float | None, maximum: float | None) -> None:
    if minimum is not None and value < minimum:
        raise ConfigError(f"{name} is {value}; it must be at least {minimum}")
    if maximum is not None and value > maximum:
        raise ConfigError(f"{name} is {value}; it must be at most {maximum}")

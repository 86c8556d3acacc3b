"""The stack's settings, read once from the environment and `.env`."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exchange.runtime.config import DEVELOPMENT, PRODUCTION, ConfigError, read_dotenv
from exchange.stack.catalogue import CATALOGUE, Entry, parse_without, without
from exchange.stack.certificates.settings import LOOPBACK, TlsSettings, read_tls
from exchange.stack.edge.plan import Rates
from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping

HOME_NAME = ".pincex"
HIGHEST_PORT = 65_535
MOST_PER_SECOND = 1_000_000

# In development everybody is the same machine, and benchmarks are callers too.
RATES = {
    DEVELOPMENT: Rates(known=20_000, unknown=20_000, credentials=200),
    PRODUCTION: Rates(known=2_000, unknown=200, credentials=10),
}


@dataclass(frozen=True, slots=True)
class PortSetting:
    """A port that the operator may choose: 0 takes a free one and remembers it. `host` is the address it is taken at."""

    variable: str
    what: str
    port: int
    host: str = LOOPBACK


@dataclass(frozen=True, slots=True)
class UpOptions:
    """How `pincex up` was called: without a database, or with a pair of them (remembered in the data folder)."""

    memory: bool = False
    standby: bool = False

    def arguments(self) -> list[str]:
        """The same as options of a command line."""
        return [f"--{name}" for name in ("memory", "standby") if getattr(self, name)]


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Everything that decides what `pincex up` runs.

    `environment` is what child processes inherit; `engine_port` is the first of three ports of trading-engine-1, each
    further instance takes the next ten. `entries` are the services that run where there is a database; `modules` and
    `database_urls` go by their names. `given` and `folder` are what all of it was read from.
    """

    home: Path
    edge_port: PortSetting
    ops_port: PortSetting
    debug_port: PortSetting
    tls_port: PortSetting
    mtls_port: PortSetting
    envoy_admin_port: PortSetting
    postgres_port: PortSetting
    valkey_port: PortSetting
    engine_port: PortSetting
    internal_port: PortSetting
    image: Path
    engine_module: str
    engine_max_instances: int
    modules: Mapping[str, str]
    entries: tuple[Entry, ...]
    profile: str
    rates: Rates
    tls: TlsSettings
    log_level: str
    database_url: str | None
    admin_database_url: str | None
    database_urls: Mapping[str, str | None]
    redis_url: str | None
    jwt_secret: str | None
    auth_secret: str | None
    kyc_secret: str | None
    environment: Mapping[str, str]
    given: Mapping[str, str]
    folder: Path

    def reread(self) -> StackConfig:
        """The settings as they are now: `.env` may have changed since. Raises StackError."""
        return load_config(self.given, self.folder)


def load_config(environ: Mapping[str, str], folder: Path) -> StackConfig:
    """Reads the settings as seen from `folder`; the environment wins over `.env`. Raises StackError."""
    home = find_home(environ, folder)
    values = {**_dotenv(home.parent / ".env"), **_dotenv(folder / ".env"), **environ}

    def port(variable: str, what: str, default: int) -> PortSetting:
        return PortSetting(variable, what, _integer(values, variable, default, HIGHEST_PORT))

    tls = read_tls(values)
    database_url = values.get("DATABASE_URL") or None
    return StackConfig(
        home=home,
        edge_port=port("PINCEX_EDGE_PORT", "the public edge", 8080),
        ops_port=port("PINCEX_OPS_PORT", "the ops listener", 8081),
        debug_port=port("PINCEX_DEBUG_PORT", "debug of trading-engine-1", 6060),
        tls_port=replace(port("PINCEX_TLS_PORT", "the TLS listener", 8443), host=tls.host),
        mtls_port=replace(port("PINCEX_MTLS_PORT", "the mTLS listener", 8444), host=tls.host),
        envoy_admin_port=port("PINCEX_ENVOY_ADMIN_PORT", "Envoy's admin", 9901),
        postgres_port=port("PINCEX_POSTGRES_PORT", "PostgreSQL", 0),
        valkey_port=port("PINCEX_VALKEY_PORT", "Valkey", 0),
        engine_port=port("PINCEX_ENGINE_PORT", "trading-engine-1", 0),
        internal_port=port("PINCEX_INTERNAL_PORT", "the listener between services", 0),
        image=Path(values["PINCEX_IMAGE"]) if values.get("PINCEX_IMAGE") else default_image(),
        engine_module=values.get("PINCEX_ENGINE_MODULE") or "exchange.trading",
        engine_max_instances=_integer(values, "PINCEX_ENGINE_MAX_INSTANCES", 16, 32),
        modules={entry.name: values.get(entry.module_variable) or entry.module for entry in CATALOGUE},
        entries=without(parse_without(values.get("PINCEX_WITHOUT") or "")),
        profile=(profile := _profile(values)),
        rates=_rates(values, profile),
        tls=tls,
        log_level=values.get("LOG_LEVEL") or "INFO",
        database_url=database_url,
        admin_database_url=values.get("PINCEX_ADMIN_DATABASE_URL") or database_url,
        database_urls={
            entry.name: values.get(entry.database_variable) or database_url for entry in CATALOGUE if entry.database
        },
        redis_url=values.get("REDIS_URL") or None,
        jwt_secret=values.get("JWT_SECRET") or None,
        auth_secret=values.get("PINCEX_AUTH_SECRET") or None,
        kyc_secret=values.get("PINCEX_KYC_SECRET") or None,
        environment=values,
        given=dict(environ),
        folder=folder,
    )


def _profile(values: Mapping[str, str]) -> str:
    """Under `pincex up` development unless something else is said: one machine, for trying."""
    text = (values.get("PINCEX_PROFILE") or DEVELOPMENT).lower()
    if text not in RATES:
        raise StackError(f"PINCEX_PROFILE must be {' or '.join(RATES)}, not {text!r}")
    return text


def _rates(values: Mapping[str, str], profile: str) -> Rates:
    usual = RATES[profile]
    return Rates(
        known=_integer(values, "PINCEX_EDGE_REQUESTS_PER_SECOND", usual.known, MOST_PER_SECOND, 1),
        unknown=_integer(values, "PINCEX_EDGE_ANONYMOUS_REQUESTS_PER_SECOND", usual.unknown, MOST_PER_SECOND, 1),
        credentials=_integer(values, "PINCEX_EDGE_LOGINS_PER_SECOND", usual.credentials, MOST_PER_SECOND, 1),
    )


def find_home(environ: Mapping[str, str], folder: Path) -> Path:
    """PINCEX_HOME, else the nearest `.pincex` here or above, else a new one here."""
    if environ.get("PINCEX_HOME"):
        return Path(environ["PINCEX_HOME"]).absolute()
    for place in (folder, *folder.parents):
        if (place / HOME_NAME).is_dir():
            return place / HOME_NAME
    return folder / HOME_NAME


def _dotenv(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        return read_dotenv(file)
    except ConfigError as error:
        raise StackError(str(error)) from error


def default_image() -> Path:
    """The descriptor image beside the generated wire types."""
    found = importlib.util.find_spec("pincex")
    folders = found.submodule_search_locations if found is not None else None
    if not folders:
        raise StackError("the generated package `pincex` is not installed: run `make install`")
    return Path(next(iter(folders))) / "image.binpb"


def _integer(values: Mapping[str, str], variable: str, default: int, highest: int, lowest: int = 0) -> int:
    text = values.get(variable) or str(default)
    if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
        raise StackError(f"{variable} must be a whole number from {lowest} to {highest}, not {text!r}")
    return int(text)

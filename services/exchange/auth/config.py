"""What the auth service needs to know to start, read once from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exchange.auth.mail import SmtpServer
from exchange.auth.throttle_policy import ThrottlePolicy
from exchange.runtime.config import Environment, RuntimeConfig, Secret
from exchange.runtime.service_tls import ServiceTls

SERVICE: Final = "auth-service"
# Keys for AES-256 and HMAC-SHA256 are derived from it: shorter would be the weakest part.
MIN_SECRET_CHARACTERS: Final = 32
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """The cost of one password check. The default is OWASP's: 19 MiB, two passes, one lane."""

    memory_kib: int = 19_456
    iterations: int = 2
    parallelism: int = 1


@dataclass(frozen=True, slots=True)
class Config:
    """See docs/AUTH.md for the variables. Ports are on loopback; 0 takes any free one.

    `secret` is what data at rest is encrypted with; all instances share it. `home` is the data folder, in whose
    `secrets/` the first operator's password is left.
    """

    runtime: RuntimeConfig
    grpc_port: int
    ops_grpc_port: int
    gate_port: int
    metrics_port: int
    database_url: Secret
    redis_url: Secret | None
    secret: Secret
    jwt_secret: Secret
    home: Path
    mailbox_dir: Path
    smtp: SmtpServer | None
    mail_from: str
    throttle: ThrottlePolicy
    argon2: Argon2Parameters
    access_token_s: int
    refresh_token_s: int
    signing_key_s: int
    signature_window_ms: int
    drain_s: float
    service_tls: ServiceTls | None

    @classmethod
    def read(cls, environment: Environment) -> Config:
        """Read and check everything. Raises ConfigError, naming the variable."""
        home = environment.path("PINCEX_HOME", Path(".pincex"))
        return cls(
            runtime=RuntimeConfig.read(environment, SERVICE),
            grpc_port=environment.integer("PINCEX_GRPC_PORT", 0, minimum=0, maximum=65535),
            ops_grpc_port=environment.integer("PINCEX_OPS_GRPC_PORT", 0, minimum=0, maximum=65535),
            gate_port=environment.integer("PINCEX_GATE_PORT", 0, minimum=0, maximum=65535),
            metrics_port=environment.integer("PINCEX_METRICS_PORT", 0, minimum=0, maximum=65535),
            database_url=environment.database_url("PINCEX_AUTH_DATABASE_URL"),
            redis_url=environment.optional_secret("REDIS_URL"),
            secret=environment.secret("PINCEX_AUTH_SECRET", minimum_length=MIN_SECRET_CHARACTERS),
            jwt_secret=environment.secret("JWT_SECRET"),
            home=home,
            mailbox_dir=environment.path("PINCEX_MAILBOX_DIR", home / "mailbox"),
            smtp=_smtp(environment),
            mail_from=environment.optional("PINCEX_MAIL_FROM", "PinCEX <no-reply@localhost>"),
            throttle=ThrottlePolicy.read(environment),
            argon2=_argon2(environment),
            access_token_s=environment.integer("PINCEX_ACCESS_TOKEN_SECONDS", 300, minimum=10, maximum=3_600),
            refresh_token_s=environment.integer("PINCEX_REFRESH_TOKEN_DAYS", 30, minimum=1, maximum=365) * _DAY_S,
            signing_key_s=environment.integer("PINCEX_SIGNING_KEY_DAYS", 30, minimum=1, maximum=365) * _DAY_S,
            signature_window_ms=environment.integer("PINCEX_SIGNATURE_WINDOW_MS", 5_000, minimum=500, maximum=60_000),
            drain_s=environment.number("PINCEX_DRAIN_SECONDS", 5.0, minimum=0.5, maximum=300.0),
            service_tls=ServiceTls.read(environment),
        )


def _smtp(environment: Environment) -> SmtpServer | None:
    url = environment.optional_secret("PINCEX_SMTP_URL")
    return None if url is None else SmtpServer.parse(url)


def _argon2(environment: Environment) -> Argon2Parameters:
    default = Argon2Parameters()
    lanes = environment.integer("PINCEX_ARGON2_PARALLELISM", default.parallelism, minimum=1, maximum=16)
    return Argon2Parameters(
        # RFC 9106: at least 8 KiB for each lane.
        environment.integer("PINCEX_ARGON2_MEMORY_KIB", default.memory_kib, minimum=8 * lanes, maximum=1 << 20),
        environment.integer("PINCEX_ARGON2_ITERATIONS", default.iterations, minimum=1, maximum=64),
        lanes,
    )

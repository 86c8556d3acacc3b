"""What the auth service counts; docs/METRICS.md lists it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class AuthMetrics:
    """One a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.argon2 = Counter(
            "pincex_auth_argon2", "Runs of argon2id, by what for: verify or hash.", ["work"], registry=registry
        )
        self.logins = Counter(
            "pincex_auth_logins",
            "Log-ins that were answered, by OK or the error's reason.",
            ["outcome"],
            registry=registry,
        )
        self.attempts_refused = Counter(
            "pincex_auth_attempts_refused",
            "Guesses that were refused unseen, by what was blocked: name or address.",
            ["by"],
            registry=registry,
        )
        self.login_locks = Counter(
            "pincex_auth_login_locks", "Names whose log-in was locked by failed attempts.", registry=registry
        )
        self.mails = Counter(
            "pincex_auth_mails",
            "Mails by what became of them: sent, failed (after all tries), dropped (too many were waiting).",
            ["outcome"],
            registry=registry,
        )
        self.refreshes = Counter(
            "pincex_auth_refreshes",
            "Refresh tokens that were answered: OK, repeated (a lost answer), reused (its session ended), refused.",
            ["outcome"],
            registry=registry,
        )
        self.tokens = Counter(
            "pincex_auth_tokens", "Access tokens signed, by what they stand for.", ["of"], registry=registry
        )
        self.judged = Counter(
            "pincex_auth_gate_requests",
            "Requests that the gate judged, by what they came with (key, certificate), and OK or the error's reason.",
            ["of", "outcome"],
            registry=registry,
        )
        self.signing_key_seconds = Gauge(
            "pincex_auth_signing_key_age_seconds", "Since when the present signing key signs.", registry=registry
        )

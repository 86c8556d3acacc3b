"""Mails on their way: into a folder, or to a server that speaks SMTP; in the background, so that no answer waits for one.

A call that waited would tell by its duration whether an address is known. What fails is tried again a few times; what is
lost then, or with the process, is asked for again by whoever waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import smtplib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid, parseaddr
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import structlog

from exchange.auth.contract import Mail
from exchange.auth.metrics import AuthMetrics
from exchange.runtime.clock import Clock
from exchange.runtime.config import ConfigError, Secret

MAX_WAITING: Final = 1_000
"""Mails that wait to be sent; one more is dropped."""
MAX_MAILBOX_FILES: Final = 1_000
"""Mails that are kept in the folder; the oldest goes for one more."""
TRIES: Final = 3
FIRST_RETRY_S: Final = 1.0
SMTP_TIMEOUT_S: Final = 10.0

_SUFFIX: Final = ".eml"
# With the line ends of files.
_FILE_POLICY: Final = SMTP.clone(linesep="\n")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
# Of the folder's and of SMTP's way; smtplib's own errors are OSErrors.
_FAILURES: Final = (OSError, ValueError)


class Transport(Protocol):
    """Hands one message over. May block: it is called in a thread."""

    def deliver(self, message: EmailMessage) -> None:
        """Deliver it. Raises OSError or ValueError."""
        ...


class Mailbox:
    """Writes each mail as a file of its own, for its owner only: the default, for development and tests."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def deliver(self, message: EmailMessage) -> None:
        """Write it aside, then give it its name: who watches the folder sees whole mails only. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{self._clock.time_ns():020d}-{secrets.token_hex(4)}"
        aside = self._folder / f".{name}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(message.as_bytes(policy=_FILE_POLICY))
            aside.rename(self._folder / f"{name}{_SUFFIX}")
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        for old in sorted(self._folder.glob(f"*{_SUFFIX}"))[:-MAX_MAILBOX_FILES]:
            old.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where `smtp://user:password@host:587` (STARTTLS is demanded) or `smtps://host:465` leads.

    Only a server on this machine may do without encryption, and gets no password then.
    """

    host: str
    port: int
    user: str
    password: Secret
    implicit_tls: bool

    @classmethod
    def parse(cls, url: Secret) -> SmtpServer:
        """Raises ConfigError, which repeats nothing of the URL."""
        try:
            parts = urlsplit(url.reveal())
            port = parts.port
        except ValueError:
            raise ConfigError("PINCEX_SMTP_URL cannot be read") from None
        if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ConfigError("PINCEX_SMTP_URL must be smtp://user:password@host:port or smtps://...")
        implicit = parts.scheme == "smtps"
        return cls(
            host=parts.hostname,
            port=port or (465 if implicit else 587),
            user=unquote(parts.username or ""),
            password=Secret(unquote(parts.password or "")),
            implicit_tls=implicit,
        )


class Smtp:
    """Sends each mail over a connection of its own: they are few."""

    def __init__(self, server: SmtpServer, tls: ssl.SSLContext | None = None) -> None:
        """`tls` is what certificates are checked with; default: this machine's authorities."""
        self._server = server
        self._tls = tls if tls is not None else ssl.create_default_context()

    def deliver(self, message: EmailMessage) -> None:
        """Raises OSError, of which smtplib's errors are."""
        with self._connect() as connection:
            encrypted = self._server.implicit_tls or self._start_tls(connection)
            if self._server.user and encrypted:
                connection.login(self._server.user, self._server.password.reveal())
            connection.send_message(message)

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.implicit_tls:
            return smtplib.SMTP_SSL(server.host, server.port, timeout=SMTP_TIMEOUT_S, context=self._tls)
        return smtplib.SMTP(server.host, server.port, timeout=SMTP_TIMEOUT_S)

    def _start_tls(self, connection: smtplib.SMTP) -> bool:
        """Encrypt; False where a server of this machine cannot. Raises SMTPNotSupportedError where another cannot."""
        connection.ehlo()
        if self._server.host in _LOOPBACK and not connection.has_extn("starttls"):
            return False
        connection.starttls(context=self._tls)
        return True


class Postman:
    """The MailSender of the contract: a bounded queue and one task that empties it."""

    def __init__(
        self,
        transport: Transport,
        sender: str,
        *,
        clock: Clock,
        metrics: AuthMetrics,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        """`sender` stands in `From:`."""
        self._transport = transport
        self._sender = sender
        self._clock = clock
        self._metrics = metrics
        self._first_retry_s = first_retry_s
        self._waiting: asyncio.Queue[Mail] = asyncio.Queue(MAX_WAITING)
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger("mail")

    async def send(self, mail: Mail) -> None:
        """See the contract."""
        try:
            self._waiting.put_nowait(mail)
        except asyncio.QueueFull:
            self._metrics.mails.labels("dropped").inc()
            self._log.error("too many mails are waiting: one was dropped", limit=MAX_WAITING)

    async def run(self) -> None:
        """Send what is waiting, for ever."""
        while True:
            mail = await self._waiting.get()
            try:
                await self._deliver(mail)
            finally:
                self._waiting.task_done()

    async def drain(self, seconds: float) -> None:
        """Give what is waiting so long to be sent."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._waiting.join()

    async def _deliver(self, mail: Mail) -> None:
        for number in range(1, TRIES + 1):
            try:
                await asyncio.to_thread(self._transport.deliver, self._message(mail))
            except _FAILURES as error:
                # Not its text: servers repeat addresses and what they were sent.
                self._log.warning("a mail was not sent", error=type(error).__name__, attempt=number)
            else:
                self._metrics.mails.labels("sent").inc()
                return
            if number < TRIES:
                await asyncio.sleep(self._first_retry_s * 2 ** (number - 1))
        self._metrics.mails.labels("failed").inc()

    def _message(self, mail: Mail) -> EmailMessage:
        """Raises ValueError where a header would hold a line break."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = mail.to
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(datetime.fromtimestamp(self._clock.time_ns() // 1_000_000_000, UTC))
        message["Message-ID"] = make_msgid(domain=parseaddr(self._sender)[1].rpartition("@")[2] or "localhost")
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        return message

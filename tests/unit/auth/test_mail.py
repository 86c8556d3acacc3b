"""Mails leave in the background, whole and for their owner's eyes, and no log line shows what they say."""

from __future__ import annotations

import asyncio
import base64
import email
import email.policy
import socket
import ssl
import stat
import threading
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import TYPE_CHECKING

import pytest
import structlog
from cryptography.x509.oid import ExtendedKeyUsageOID
from prometheus_client import CollectorRegistry

from exchange.auth import mail as mail_module
from exchange.auth.contract import Mail
from exchange.auth.mail import MAX_WAITING, TRIES, Mailbox, Postman, Smtp, SmtpServer
from exchange.auth.metrics import AuthMetrics
from exchange.runtime.clock import ManualClock
from exchange.runtime.config import ConfigError, Secret
from exchange.stack.certificates.issue import host_name, issue, new_authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAIL = Mail("alice@example.com", "Your code", "12345678 is your code.\n")
SENDER = "PinCEX <no-reply@exchange.example>"


class Failing:
    """A transport that fails so many times, with an error that repeats what it was given."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.tried = 0
        self.delivered: list[EmailMessage] = []

    def deliver(self, message: EmailMessage) -> None:
        self.tried += 1
        if self.left:
            self.left -= 1
            raise OSError(f"refused: {message['To']} {message.get_content()}")
        self.delivered.append(message)


@pytest.fixture
def metrics() -> AuthMetrics:
    return AuthMetrics(CollectorRegistry())


def counted(metrics: AuthMetrics, outcome: str) -> float:
    return float(metrics.mails.labels(outcome)._value.get())


def postman(transport: mail_module.Transport, metrics: AuthMetrics) -> Postman:
    return Postman(transport, SENDER, clock=ManualClock(), metrics=metrics, first_retry_s=0.001)


async def sent(postman: Postman, *mails: Mail) -> None:
    """Everything has been sent, or given up."""
    for mail in mails:
        await postman.send(mail)
    running = asyncio.create_task(postman.run())
    await postman.drain(10.0)
    running.cancel()


def written(folder: Path) -> list[EmailMessage]:
    return [
        email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in sorted(folder.iterdir())
    ]


async def test_a_mail_becomes_a_file_that_only_its_owner_reads(tmp_path: Path, metrics: AuthMetrics) -> None:
    folder = tmp_path / "data" / "mailbox"
    await sent(postman(Mailbox(folder, ManualClock()), metrics), MAIL, Mail("bob@example.com", "Hello", "Grüße\n"))
    first, second = written(folder) if written(folder)[0]["To"] == MAIL.to else reversed(written(folder))
    assert (first["To"], first["From"], first["Subject"]) == (MAIL.to, SENDER, MAIL.subject)
    assert first.get_content() == MAIL.text
    assert first["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    assert first["Message-ID"].endswith("@exchange.example>")
    assert second.get_content() == "Grüße\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert {file.suffix for file in folder.iterdir()} == {".eml"}, "nothing half written is left"
    assert counted(metrics, "sent") == 2


def test_the_mailbox_keeps_a_number_of_mails_and_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_module, "MAX_MAILBOX_FILES", 3)
    for name in ("1-old.eml", "2-old.eml", "3-old.eml", "0-notes.txt"):
        (tmp_path / name).touch()
    message = EmailMessage()
    message.set_content("the newest")
    clock = ManualClock(9 * 10**19)
    Mailbox(tmp_path, clock).deliver(message)
    kept = sorted(file.name for file in tmp_path.iterdir())
    assert [name[:2] for name in kept] == ["0-", "2-", "3-", "90"]


async def test_a_failure_is_tried_again_and_no_log_line_says_what_was_in_the_mail(metrics: AuthMetrics) -> None:
    passing, broken = Failing(TRIES - 1), Failing(100)
    with structlog.testing.capture_logs() as lines:
        await sent(postman(passing, metrics), MAIL)
        await sent(postman(broken, metrics), MAIL)
    assert len(passing.delivered) == 1
    assert broken.tried == TRIES
    assert (counted(metrics, "sent"), counted(metrics, "failed")) == (1, 1)
    assert len(lines) == 2 * TRIES - 1
    assert not any(secret in repr(lines) for secret in ("12345678", "alice", "refused"))


def test_a_mailbox_that_cannot_take_a_mail_keeps_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path, __: Path) -> None:
        raise OSError("no room")

    monkeypatch.setattr("pathlib.Path.rename", full)
    message = EmailMessage()
    message.set_content("12345678")
    with pytest.raises(OSError, match="no room"):
        Mailbox(tmp_path, ManualClock()).deliver(message)
    assert list(tmp_path.iterdir()) == []


async def test_one_that_cannot_be_sent_does_not_hold_up_the_next(metrics: AuthMetrics) -> None:
    transport = Failing(0)
    await sent(postman(transport, metrics), Mail("a@example.com\r\nBcc: b@example.com", "x", "x"), MAIL)
    assert [message["To"] for message in transport.delivered] == [MAIL.to]
    assert counted(metrics, "failed") == 1


async def test_beyond_the_limit_a_mail_is_dropped_and_counted(metrics: AuthMetrics) -> None:
    sender = postman(Failing(0), metrics)
    for _ in range(MAX_WAITING + 3):
        await sender.send(MAIL)
    assert counted(metrics, "dropped") == 3


async def test_a_drain_does_not_wait_for_ever(metrics: AuthMetrics) -> None:
    sender = postman(Failing(0), metrics)
    await sender.send(MAIL)
    # Nobody runs it.
    await asyncio.wait_for(sender.drain(0.01), 5.0)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example", ("mail.example", 587, "", "", False)),
        ("smtp://user:p%40ss@mail.example:2525", ("mail.example", 2525, "user", "p@ss", False)),
        ("smtps://user:hunter2@mail.example", ("mail.example", 465, "user", "hunter2", True)),
    ],
)
def test_the_servers_url_is_read(url: str, server: tuple[str, int, str, str, bool]) -> None:
    found = SmtpServer.parse(Secret(url))
    assert (found.host, found.port, found.user, found.password.reveal(), found.implicit_tls) == server
    assert (server[3] or "???") not in repr(found)


@pytest.mark.parametrize(
    "url", ["mail.example", "http://u:secret@h", "smtp://", "smtp://u:secret@h/x", "smtp://u:secret@h:port"]
)
def test_another_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="PINCEX_SMTP_URL") as refused:
        SmtpServer.parse(Secret(url))
    assert "secret" not in str(refused.value)


class SmtpStub:
    """A server that speaks just enough SMTP for one client, and keeps the lines it got."""

    def __init__(self, listening: socket.socket, tls: ssl.SSLContext | None, *, implicit: bool) -> None:
        self.lines: list[str] = []
        self._implicit = implicit
        self.failure: BaseException | None = None
        self._listening, self._tls = listening, tls
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listening.accept()
            connection.settimeout(10.0)
            with ExitStack() as opened:
                opened.enter_context(connection)
                if self._implicit and self._tls is not None:
                    connection = opened.enter_context(self._tls.wrap_socket(connection, server_side=True))
                self._talk(opened, connection, encrypted=self._implicit)
        except OSError as error:
            self.failure = error

    def _talk(self, opened: ExitStack, connection: socket.socket, *, encrypted: bool) -> None:
        in_data = False
        connection.sendall(b"220 stub\r\n")
        stream = opened.enter_context(connection.makefile("rb"))
        while line := stream.readline().decode().rstrip("\r\n"):
            self.lines.append(line)
            word = line[:4].upper()
            if word == "EHLO":
                extension = "250-STARTTLS\r\n" if self._tls is not None and not encrypted else ""
                connection.sendall(f"250-stub\r\n{extension}250 AUTH PLAIN\r\n".encode())
            elif word == "STAR" and self._tls is not None:
                connection.sendall(b"220 go on\r\n")
                connection = opened.enter_context(self._tls.wrap_socket(connection, server_side=True))
                stream, encrypted = opened.enter_context(connection.makefile("rb")), True
            elif word == "AUTH":
                connection.sendall(b"235 welcome\r\n")
            elif word == "DATA":
                connection.sendall(b"354 go on\r\n")
                in_data = True
                break
            else:
                connection.sendall(b"250 ok\r\n")
        while in_data and (line := stream.readline().decode().rstrip("\r\n")) != ".":
            self.lines.append(line)
        if in_data:
            connection.sendall(b"250 taken\r\n")
            self.lines.append(stream.readline().decode().rstrip("\r\n"))
            connection.sendall(b"221 bye\r\n")


@contextmanager
def smtp_stub(tls: ssl.SSLContext | None = None, *, implicit: bool = False) -> Iterator[tuple[SmtpStub, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stub = SmtpStub(listening, tls, implicit=implicit)
        yield stub, listening.getsockname()[1]
        stub.thread.join(10.0)
        assert not stub.thread.is_alive()


async def test_a_server_of_this_machine_needs_no_encryption_and_gets_no_password(metrics: AuthMetrics) -> None:
    with smtp_stub() as (stub, port):
        url = Secret(f"smtp://user:hunter2@127.0.0.1:{port}")
        await sent(postman(Smtp(SmtpServer.parse(url)), metrics), MAIL)
    assert counted(metrics, "sent") == 1
    assert "rcpt TO:<alice@example.com>" in [line.replace("RCPT", "rcpt") for line in stub.lines]
    assert "12345678 is your code." in stub.lines
    assert not [line for line in stub.lines if line.upper().startswith("AUTH")]


async def test_another_server_without_encryption_gets_nothing(
    metrics: AuthMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_module, "TRIES", 1)
    monkeypatch.setattr(mail_module, "_LOOPBACK", frozenset())
    with smtp_stub() as (stub, port):
        await sent(postman(Smtp(SmtpServer.parse(Secret(f"smtp://user:hunter2@127.0.0.1:{port}"))), metrics), MAIL)
    assert counted(metrics, "failed") == 1
    assert [line[:4] for line in stub.lines] in (["ehlo"], ["ehlo", "QUIT"], ["ehlo", "quit"])


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("trusted", ["trusted", "strange"])
async def test_the_password_goes_to_a_server_with_a_good_certificate_only(
    metrics: AuthMetrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: str, scheme: str
) -> None:
    monkeypatch.setattr(mail_module, "TRIES", 1)
    now = datetime.now(UTC)
    authority = new_authority("test", now)
    pair = issue(authority, "mail", [host_name("127.0.0.1")], [ExtendedKeyUsageOID.SERVER_AUTH], now)
    file = tmp_path / "server.pem"
    await asyncio.to_thread(file.write_text, pair.pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    known = authority if trusted == "trusted" else new_authority("another", now)
    client = ssl.create_default_context(cadata=known.certificate_pem)
    with smtp_stub(server, implicit=scheme == "smtps") as (stub, port):
        url = Secret(f"{scheme}://user:hunter2@127.0.0.1:{port}")
        await sent(postman(Smtp(SmtpServer.parse(url), client), metrics), MAIL)
    logged_in = [line for line in stub.lines if line.startswith("AUTH PLAIN ")]
    if trusted == "trusted":
        assert counted(metrics, "sent") == 1
        assert [base64.b64decode(line.split()[2]) for line in logged_in] == [b"\0user\0hunter2"]
        if scheme == "smtp":
            assert stub.lines.index("STARTTLS") < stub.lines.index(logged_in[0])
    else:
        assert counted(metrics, "failed") == 1
        assert stub.lines[1:] == (["STARTTLS"] if scheme == "smtp" else [])

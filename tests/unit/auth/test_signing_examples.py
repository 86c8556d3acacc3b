"""The examples of docs/SIGNING.md make requests whose signatures are right."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from exchange.auth import signatures
from tests.unit.docs.examples import examples, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "SIGNING.md").read_text(encoding="utf-8")
EXAMPLES = {example.name: example for example in examples(TEXT)}
API_KEY = "ak_" + "e" * 32
SECRET = bytes(range(32))


@dataclass
class Edge:
    """Takes every request and keeps it."""

    port: int
    requests: list[tuple[str, str, dict[str, str], bytes]]


@pytest.fixture
def edge() -> Iterator[Edge]:
    requests: list[tuple[str, str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            requests.append((self.command, self.path, headers, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self._take()

        def do_POST(self) -> None:
            self._take()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Edge(server.server_address[1], requests)
        server.shutdown()
        thread.join()


def run(name: str, edge: Edge, folder: Path) -> str:
    script = EXAMPLES[name].script.replace("localhost:8080", f"127.0.0.1:{edge.port}")
    script = script.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "API_KEY": API_KEY, "SECRET": base64.b64encode(SECRET).decode()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert missing(EXAMPLES[name].output, done.stdout) is None, done.stdout
    return done.stdout


def is_signed(edge: Edge, verifier: signatures.Verifier) -> bool:
    ((method, path, headers, body),) = edge.requests
    claim = signatures.read_claim(
        headers["x-api-key"],
        headers["x-pincex-timestamp"],
        headers["x-pincex-nonce"],
        headers["x-pincex-signature"],
    )
    assert claim.api_key == API_KEY
    assert abs(claim.timestamp_ms - time.time() * 1_000) < 60_000
    signed = signatures.signed_string(claim, method, path, signatures.content_hash(body))
    return signatures.verify(verifier, claim, signed)


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL's command line is an optional tool")


@pytest.mark.parametrize("name", ["python-hmac", pytest.param("shell-hmac", marks=needs_openssl)])
def test_an_example_with_a_secret_signs_its_request(name: str, edge: Edge, tmp_path: Path) -> None:
    run(name, edge, tmp_path)
    assert is_signed(edge, signatures.hmac_verifier(SECRET))


@needs_openssl
def test_the_example_with_a_key_pair_signs_its_request(edge: Edge, tmp_path: Path) -> None:
    printed = run("shell-ed-public", edge, tmp_path).strip()
    private = load_pem_private_key((tmp_path / "trading-key.pem").read_bytes(), None)
    public: bytes = private.public_key().public_bytes_raw()  # type: ignore[union-attr]  # it is Ed25519
    assert base64.b64decode(printed) == public
    run("shell-ed-sign", edge, tmp_path)
    assert is_signed(edge, signatures.ed25519_verifier(public))


def test_every_example_of_the_document_is_run() -> None:
    assert set(EXAMPLES) == {"python-hmac", "shell-hmac", "shell-ed-public", "shell-ed-sign"}


def test_the_document_says_the_bounds_of_the_code() -> None:
    from exchange.auth.gate import credentials
    from exchange.auth.key_requests import MAX_ADDRESSES
    from exchange.auth.keys import MAX_LIVE_KEYS
    from exchange.auth.nonces import MAX_WAITING, PURGE_MARGIN_MS

    bounds = dict(re.findall(r"^\| ([a-zA-Z ]+) \| ([\d,]+)(?: MiB)? \| `", TEXT, re.MULTILINE))
    assert bounds == {
        "requests whose nonces wait at an instance": f"{MAX_WAITING:,}",
        "keys and certificates that an instance looks up at a time": f"{credentials.MAX_LOOKING_UP:,}",
        "body of a signed REST request": "1",
        "live keys of a user": f"{MAX_LIVE_KEYS}",
        "addresses of a key": f"{MAX_ADDRESSES}",
    }
    assert f"up to {credentials.MAX_CACHED:,} keys" in TEXT
    assert f"each for {credentials.MAX_AGE_S:g} s at most" in TEXT
    assert f"not possible for {credentials.MAX_SILENCE_S:g} s" in TEXT
    assert PURGE_MARGIN_MS == 60_000

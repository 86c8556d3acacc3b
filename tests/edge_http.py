"""One HTTP call, and what an error of the edge must look like."""

from __future__ import annotations

import contextlib
import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 20.0
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


@dataclass(frozen=True, slots=True)
class Answer:
    """Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def reason(self) -> str:
        """The reason of a `google.rpc.Status` with an `ErrorInfo` of domain pincex; fails if it is not one."""
        assert self.headers["content-type"].startswith("application/json"), self.headers
        status = self.json()
        assert set(status) == {"code", "message", "details"}, status
        assert isinstance(status["code"], int), status
        assert status["code"] > 0, status
        assert status["message"], status
        infos = [detail for detail in status["details"] if detail["@type"] == ERROR_INFO]
        assert len(infos) == 1, status
        assert infos[0]["domain"] == "pincex", status
        reason: str = infos[0]["reason"]
        return reason


def call(
    url: str,
    method: str = "GET",
    body: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Sends one request on a connection of its own. The answer may come before the whole body is sent."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        data = body.encode() if isinstance(body, str) else body
        # Refused while it was being sent: the answer is there all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, target or "/", data, dict(headers or {}))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()

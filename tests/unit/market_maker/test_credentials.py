"""The market maker signs as every customer does."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from unittest import mock

import pytest

from exchange.auth import market_maker_key
from exchange.market_maker import config
from exchange.market_maker.exchange import Away
from exchange.market_maker.service import edge
from exchange.market_maker.service.edge import KeyFile, read_key, signature_headers
from pincex.auth.v1 import types_pb2
from tests.unit.docs.tables import document

VECTORS = json.loads(document("docs/signing-vectors.json"))
OVER_GRPC = [
    vector
    for vector in VECTORS["vectors"]
    if vector["algorithm"] == "HMAC_SHA256" and vector["path"].startswith("/pincex.") and vector["content"] != "stream"
]


def test_signatures_are_those_of_the_test_vectors() -> None:
    assert OVER_GRPC
    for vector in OVER_GRPC:
        secret = base64.b64decode(VECTORS["keys"][vector["api_key"]]["secret"])
        signed = vector["path"], vector["body"].encode(), vector["timestamp"], vector["nonce"]
        headers = dict(signature_headers(vector["api_key"], secret, *signed))
        assert headers["x-pincex-signature"] == vector["signature"]
        assert headers["x-pincex-content-sha256"] == vector["content"]


def test_both_services_mean_the_same_file() -> None:
    assert config.KEY_FILE == market_maker_key.KEY_FILE


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"api_key": "ak_x", "secret": "???"}', '{"api_key": 1}'])
def test_a_file_that_holds_no_key_is_asked_for_again_and_never_shown(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Away) as caught:
        read_key(file)
    assert "???" not in str(caught.value)


class FakeAuth:
    """Gives numbered tokens, or refuses."""

    def __init__(self, life_s: float) -> None:
        self.calls = 0
        self.life_s = life_s
        self.away = False

    async def ExchangeApiKey(self, request, metadata, timeout):  # noqa: N802, ASYNC109 - the contract's name
        self.calls += 1
        if self.away:
            raise Away("refused")
        tokens = types_pb2.Tokens(access_token=f"token-{self.calls}", account="100007")
        tokens.access_expire_time.FromNanoseconds(time.time_ns() + int(self.life_s * 1e9))
        return tokens


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[KeyFile, FakeAuth]:
    file = tmp_path / "key"
    file.write_text(json.dumps({"api_key": "ak_x", "secret": base64.b64encode(bytes(32)).decode()}))
    monkeypatch.setattr(edge, "AGAIN_S", 0.0)
    auth = FakeAuth(life_s=3_600.0)
    credentials = KeyFile(file, mock.Mock())
    credentials._stub = auth
    return credentials, auth


async def test_callers_at_once_share_one_token(key: tuple[KeyFile, FakeAuth]) -> None:
    credentials, auth = key
    found = await asyncio.gather(*(credentials.metadata() for _ in range(5)))
    assert set(found) == {(("authorization", "Bearer token-1"),)}
    assert (auth.calls, credentials.account) == (1, "100007")


async def test_a_token_is_renewed_when_it_was_refused(key: tuple[KeyFile, FakeAuth]) -> None:
    credentials, auth = key
    await credentials.metadata()
    credentials.refused()
    assert await credentials.metadata() == (("authorization", "Bearer token-2"),)
    auth.away = True
    credentials.refused()
    with pytest.raises(Away):
        await credentials.metadata()


async def test_a_token_that_lives_is_used_on_where_no_other_is_had(key: tuple[KeyFile, FakeAuth]) -> None:
    credentials, auth = key
    await credentials.metadata()
    auth.away = True
    credentials._renew_at = 0.0
    assert await credentials.metadata() == (("authorization", "Bearer token-1"),)
    assert auth.calls == 2

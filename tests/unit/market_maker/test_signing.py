"""The market maker signs as every customer does."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from exchange.auth import market_maker_key
from exchange.market_maker import config
from exchange.market_maker.exchange import Away
from exchange.market_maker.service.edge import read_key, signature_headers
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

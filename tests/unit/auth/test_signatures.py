"""What API keys sign: both ends are held to the published vectors, and OpenSSL agrees with them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.auth import signatures
from exchange.auth.signatures import Claim, MalformedSignature, Verifier
from pincex_client.signing import CONTENT_SHA256, Ed25519Signer, HmacSigner, RequestSigner, decode_key

ROOT = Path(__file__).resolve().parents[3]
PUBLISHED = json.loads((ROOT / "docs" / "signing-vectors.json").read_text(encoding="utf-8"))
VECTORS: list[dict[str, str]] = PUBLISHED["vectors"]
KEYS: dict[str, dict[str, str]] = PUBLISHED["keys"]

each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda each: f"{each['algorithm']}: {each['name']}")


def verifier_of(api_key: str) -> Verifier:
    key = KEYS[api_key]
    if key["algorithm"] == signatures.HMAC_SHA256:
        return signatures.hmac_verifier(base64.b64decode(key["secret"]))
    return signatures.ed25519_verifier(base64.b64decode(key["public_key"]))


def signer_of(vector: dict[str, str]) -> RequestSigner:
    """The client's signer at the time and with the nonce of the vector."""
    key = KEYS[vector["api_key"]]
    now: Any = {"clock_ms": lambda: int(vector["timestamp"]), "nonce": lambda: vector["nonce"]}
    if key["algorithm"] == signatures.HMAC_SHA256:
        return HmacSigner(vector["api_key"], decode_key(key["secret"]), **now)
    return Ed25519Signer(vector["api_key"], decode_key(key["private_key"]), **now)


def claim_of(vector: dict[str, str]) -> Claim:
    return signatures.read_claim(vector["api_key"], vector["timestamp"], vector["nonce"], vector["signature"])


@each_vector
def test_the_server_builds_the_string_of_a_vector_and_verifies_its_signature(vector: dict[str, str]) -> None:
    claim = claim_of(vector)
    content = signatures.content_hash(vector["body"].encode()) if "body" in vector else signatures.STREAM_CONTENT
    assert content == vector["content"]
    signed = signatures.signed_string(claim, vector["method"], vector["path"], content)
    assert signed == vector["signed"]
    assert claim.algorithm == vector["algorithm"]
    assert signatures.verify(verifier_of(vector["api_key"]), claim, signed)


@each_vector
def test_the_client_makes_the_headers_of_a_vector(vector: dict[str, str]) -> None:
    signer = signer_of(vector)
    body = vector["body"].encode() if "body" in vector else None
    grpc = dict(signer.grpc_headers(vector["path"], body))
    expected = {
        "x-api-key": vector["api_key"],
        "x-pincex-timestamp": vector["timestamp"],
        "x-pincex-nonce": vector["nonce"],
        "x-pincex-signature": vector["signature"],
    }
    if vector["method"] == "POST":
        assert grpc == {**expected, CONTENT_SHA256: vector["content"]}
    if body is not None:
        assert signer.rest_headers(vector["method"], vector["path"], body) == expected


@pytest.mark.parametrize("place", ["timestamp", "nonce", "method", "path", "content", "signature"])
@pytest.mark.parametrize("vector", [VECTORS[0], VECTORS[-1]], ids=lambda each: each["algorithm"])
def test_a_vector_that_is_altered_anywhere_is_refused(vector: dict[str, str], place: str) -> None:
    other = {
        "timestamp": "1795622400009",
        "nonce": "other",
        "method": "PUT",
        "path": vector["path"] + "?",
        "content": signatures.content_hash(b"other"),
        "signature": _flipped(vector["signature"]),
    }
    altered = {**vector, place: other[place]}
    claim = claim_of(altered)
    signed = signatures.signed_string(claim, altered["method"], altered["path"], altered["content"])
    assert not signatures.verify(verifier_of(vector["api_key"]), claim, signed)


@pytest.mark.parametrize("vector", [VECTORS[0], VECTORS[-1]], ids=lambda each: each["algorithm"])
def test_a_signature_of_the_other_algorithm_is_refused(vector: dict[str, str]) -> None:
    claim = claim_of(vector)
    other = next(key for key, one in KEYS.items() if one["algorithm"] != vector["algorithm"])
    assert not signatures.verify(verifier_of(other), claim, vector["signed"])


def test_what_stands_in_for_a_missing_key_lets_nobody_in() -> None:
    # Both stand-ins are public: whoever signs with them must be refused all the same.
    zero = HmacSigner("ak_" + "z" * 32, bytes(32))
    # RFC 8032, section 7.1, TEST 1.
    known = Ed25519Signer(
        "ak_" + "z" * 32, bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    for signer in (zero, known):
        headers = signer.rest_headers("GET", "/")
        claim = signatures.read_claim(*headers.values())
        signed = signatures.signed_string(claim, "GET", "/", signatures.content_hash(b""))
        assert not signatures.verify(signatures.NOBODY, claim, signed)
        # Nor against a key of the other kind, which has no such half.
        for key in KEYS:
            assert not signatures.verify(verifier_of(key), claim, signed)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_key", ""),
        ("api_key", "ak_short"),
        ("api_key", "ak_" + "A" * 31 + "!"),
        ("api_key", "ak_" + "A" * 32 + "\n"),
        ("timestamp", ""),
        ("timestamp", "1795622400"),
        ("timestamp", "+795622400000"),
        ("timestamp", "١٧٩٥٦٢٢٤٠٠٠٠٠"),
        ("nonce", ""),
        ("nonce", "x" * 65),
        ("nonce", "with blank"),
        ("nonce", "line\n"),
        ("signature", ""),
        ("signature", "!!!!"),
        ("signature", base64.b64encode(bytes(31)).decode()),
        ("signature", base64.b64encode(bytes(32)).decode().rstrip("=")),
        ("signature", base64.urlsafe_b64encode(b"\xff" * 32).decode()),
        ("signature", "A" * 42 + "B="),
        ("signature", base64.b64encode(bytes(96)).decode()),
    ],
)
def test_a_malformed_header_is_named_and_its_value_is_not_repeated(field: str, value: str) -> None:
    given = {
        "api_key": VECTORS[0]["api_key"],
        **{name: VECTORS[0][name] for name in ("timestamp", "nonce", "signature")},
    }
    with pytest.raises(MalformedSignature) as refused:
        signatures.read_claim(**{**given, field: value})
    assert field.replace("_", "-") in str(refused.value)
    assert not value or value not in str(refused.value)


@given(st.binary(max_size=200))
def test_only_one_spelling_in_base64_stands_for_some_bytes(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert signatures.decode_base64(text) == data
    for other in (text + "=", text.rstrip("=") + "A", " " + text, text + "\n"):
        assert signatures.decode_base64(other) != data


def test_secrets_are_not_shown() -> None:
    secret = bytes(range(32))
    shown = f"{signatures.hmac_verifier(secret)!r} {HmacSigner('ak_x', secret)!r} {Ed25519Signer('ak_x', secret)!r}"
    assert repr(secret) not in shown
    assert base64.b64encode(secret).decode() not in shown


@pytest.mark.parametrize("text", ["", "AAAA", "!" * 44, base64.b64encode(bytes(33)).decode()])
def test_a_key_of_the_wrong_length_is_refused_by_the_client(text: str) -> None:
    with pytest.raises(ValueError, match="not base64 of 32 bytes"):
        decode_key(text)


def test_a_signer_that_follows_the_servers_clock_signs_its_time() -> None:
    signer = HmacSigner("ak_x", bytes(32), clock_ms=lambda: 1_000_000_000_000)
    signer.follow(1_000_000_005_000)
    assert signer.rest_headers("GET", "/")["x-pincex-timestamp"] == "1000000005000"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL's command line is an optional tool")
@pytest.mark.parametrize("vector", [VECTORS[0], VECTORS[6]], ids=lambda each: each["algorithm"])
def test_openssl_makes_the_signature_of_a_vector(vector: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "signed").write_text(vector["signed"], encoding="utf-8")
    key = KEYS[vector["api_key"]]
    if key["algorithm"] == signatures.HMAC_SHA256:
        hexadecimal = base64.b64decode(key["secret"]).hex()
        command = [
            "openssl",
            "dgst",
            "-sha256",
            "-mac",
            "HMAC",
            "-macopt",
            f"hexkey:{hexadecimal}",
            "-binary",
            "signed",
        ]
    else:
        # PKCS #8 of an Ed25519 key is a fixed prefix and the 32 bytes (RFC 8410).
        (tmp_path / "key.der").write_bytes(
            bytes.fromhex("302e020100300506032b657004220420") + base64.b64decode(key["private_key"])
        )
        command = ["openssl", "pkeyutl", "-sign", "-rawin", "-keyform", "DER", "-inkey", "key.der", "-in", "signed"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert base64.b64encode(done.stdout).decode() == vector["signature"]


def _flipped(signature: str) -> str:
    data = bytearray(base64.b64decode(signature))
    data[0] ^= 1
    return base64.b64encode(data).decode()

"""Which tokens count, and which never do, whatever they say of themselves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from exchange.runtime.clock import ManualClock
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.identity import verifier as verifier_module
from exchange.runtime.identity.keys import SigningKeys
from exchange.runtime.identity.verifier import LEEWAY_S, TokenVerifier, UnknownKey
from tests.identity_fixture import Issuer, SigningKey

KEY = SigningKey()
OTHER = SigningKey()


class PaperIssuer(Issuer):
    """Signs without a database."""

    def __init__(self) -> None:
        self.key = KEY


ISSUER = PaperIssuer()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time.time_ns())


@pytest.fixture
async def keys(clock: ManualClock) -> SigningKeys:
    async def load() -> dict[str, str]:
        return {KEY.key_id: json.dumps(KEY.public_jwk)}

    keys = SigningKeys(load, clock)
    await keys.refresh()
    return keys


@pytest.fixture
def verifier(keys: SigningKeys, clock: ManualClock) -> TokenVerifier:
    return TokenVerifier(keys, clock)


def base64url(data: Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    return f"{base64url(header)}.{base64url(claims)}.{base64url(signature)}"


def hmac_with_public_key() -> str:
    """Key confusion: HS256, keyed with what everybody knows."""
    head = forged({"alg": "HS256", "typ": "at+jwt", "kid": KEY.key_id}, ISSUER.claims()).rpartition(".")[0]
    return f"{head}.{base64url(hmac.new(KEY.public_pem, head.encode(), hashlib.sha256).digest())}"


def rsa_signed() -> str:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(ISSUER.claims(), private, "RS256", headers={"kid": KEY.key_id, "typ": "at+jwt"})


def brings_its_own_key() -> str:
    headers = {"kid": KEY.key_id, "typ": "at+jwt", "jwk": OTHER.public_jwk}
    return jwt.encode(ISSUER.claims(), OTHER.private, "ES256", headers=headers)


def other_curve() -> str:
    private = ec.generate_private_key(ec.SECP384R1())
    return jwt.encode(ISSUER.claims(), private, "ES384", headers={"kid": KEY.key_id, "typ": "at+jwt"})


def without(claim: str) -> str:
    claims = ISSUER.claims()
    del claims[claim]
    return ISSUER.sign(claims)


def tampered() -> str:
    head, payload, signature = ISSUER.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{head}.{base64url({**claims, 'acc': 'maker'})}.{signature}"


def named_otherwise() -> str:
    head = forged({"alg": "ES384", "typ": "at+jwt", "kid": KEY.key_id}, ISSUER.claims()).rpartition(".")[0]
    r, s = decode_dss_signature(KEY.private.sign(head.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{head}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def with_signature(change: Callable[[bytes], bytes]) -> str:
    signed, _, signature = ISSUER.token().rpartition(".")
    return f"{signed}.{base64url(change(base64.urlsafe_b64decode(signature + '==')))}"


REFUSED: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "no token": lambda: "hello",
    "two parts": lambda: "a.b",
    "not ASCII": lambda: "ä.b.c",
    "too long": lambda: "a" * 5_000,
    "alg none": lambda: forged({"alg": "none", "typ": "at+jwt", "kid": KEY.key_id}, ISSUER.claims()),
    "alg None": lambda: forged({"alg": "None", "typ": "at+jwt", "kid": KEY.key_id}, ISSUER.claims()),
    "no signature": lambda: ISSUER.token().rpartition(".")[0] + ".",
    "HS256 with the public key": hmac_with_public_key,
    "RS256": rsa_signed,
    "ES384": other_curve,
    "a key of its own in the header": brings_its_own_key,
    "another key under our key's id": lambda: ISSUER.sign(
        ISSUER.claims(), SigningKey(key_id=KEY.key_id, private=OTHER.private)
    ),
    "a signature in DER": lambda: with_signature(lambda raw: KEY.private.sign(b"x", ec.ECDSA(hashes.SHA256()))),
    "a signature of zeros": lambda: with_signature(lambda raw: bytes(64)),
    "a signature that is a byte short": lambda: with_signature(lambda raw: raw[:-1]),
    "a signature that is a byte long": lambda: with_signature(lambda raw: raw + b"\0"),
    "a padded signature": lambda: ISSUER.token() + "==",
    "a signature with characters between": lambda: ISSUER.token() + "\n\n\n\n",
    "our signature under another algorithm's name": named_otherwise,
    "a fourth part": lambda: ISSUER.token() + ".AAAA",
    "no header": lambda: ISSUER.token().partition(".")[2],
    "another type": lambda: ISSUER.sign(ISSUER.claims(), typ="JWT"),
    "an extension that must be understood": lambda: ISSUER.sign(ISSUER.claims(), crit=["x"], x=1),
    "a key id that is no text": lambda: forged({"alg": "ES256", "typ": "at+jwt", "kid": 7}, ISSUER.claims()),
    "changed claims": tampered,
    "another audience": lambda: ISSUER.token(aud="other"),
    "several audiences": lambda: ISSUER.token(aud=["pincex", "other"]),
    "another issuer": lambda: ISSUER.token(iss="other"),
    "from the future": lambda: ISSUER.token(iat=int(time.time()) + 60),
    "a user that is no number": lambda: ISSUER.token(user="1; DROP TABLE users"),
    "an account of another form": lambda: ISSUER.token(account="a b"),
    "scopes that are a text": lambda: ISSUER.token(scp="trade"),
    "a generation below zero": lambda: ISSUER.token(gen=-1),
    "a generation that is true": lambda: ISSUER.token(gen=True),
    "session and key": lambda: ISSUER.token(sid="s-1", key="ak_1"),
    "neither session nor key": lambda: ISSUER.token(sid=""),
    **{f"without {claim}": partial(without, claim) for claim in ("iss", "aud", "sub", "exp", "iat", "acc")},
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("seen", [False, True], ids=["at first", "after a good one"])
def test_a_token_that_is_not_ours_is_refused_and_takes_no_memory(verifier, name, seen):
    if seen:
        verifier.verify(ISSUER.token("100777"))
    token = REFUSED[name]()
    with pytest.raises(ServiceError) as caught:
        verifier.verify(token)
    assert caught.value.reason == ErrorReason.TOKEN_REFUSED
    assert verifier.cached == seen
    for part in token.split("."):
        assert len(part) < 8 or part not in str(caught.value)


def test_a_token_becomes_a_principal(verifier):
    token = ISSUER.token(
        "100007",
        account="100007.bot",
        api_key="ak_1",
        scopes=("read", "trade"),
        tier="professional",
        ops=50,
        opn=10,
        gen=3,
        sxp=2_000_000_000,
    )
    principal = verifier.verify(token)
    assert (principal.user, principal.account, principal.source) == ("100007", "100007.bot", "api-key")
    assert (principal.api_key, principal.session, principal.certificate) == ("ak_1", "", "")
    assert principal.scopes == {"read", "trade"}
    assert (principal.tier, principal.max_orders_per_second, principal.max_open_orders) == ("professional", 50, 10)
    assert (principal.generation, principal.ends_at) == (3, 2_000_000_000)
    assert principal.credential == "api-key ak_1"
    assert principal.signing_key == KEY.key_id


def test_the_source_is_what_the_token_stands_for(verifier):
    assert verifier.verify(ISSUER.token(session="s-1")).source == "token"
    assert verifier.verify(ISSUER.token(certificate="spiffe://pincex/firm")).source == "certificate"


@pytest.mark.parametrize(
    ("scopes", "roles"),
    [(("read", "trade"), {"trader", "market_maker"}), (("read", "admin"), {"trader", "market_maker", "operator"})],
)
def test_roles_of_staff_count_with_the_scope_admin_only(verifier, scopes, roles):
    token = ISSUER.token(scopes=scopes, roles=("trader", "market_maker", "operator"))
    assert verifier.verify(token).roles == roles


def test_a_token_expires_whether_or_not_it_was_seen_before(verifier, clock):
    seen, unseen = ISSUER.token(expires_in_s=60), ISSUER.token(expires_in_s=60)
    verifier.verify(seen)
    clock.advance(60 + LEEWAY_S - 2)
    verifier.verify(seen)
    clock.advance(3)
    for token in (seen, unseen):
        with pytest.raises(ServiceError) as caught:
            verifier.verify(token)
        assert caught.value.reason == ErrorReason.TOKEN_EXPIRED
    assert verifier.cached == 0


def test_a_signature_is_checked_once(verifier, monkeypatch):
    token = ISSUER.token()
    first = verifier.verify(token)
    monkeypatch.setattr(verifier_module, "_signed_payload", None)
    assert verifier.verify(token) is first


def test_the_cache_is_bounded_and_forgets_the_least_used(verifier, monkeypatch):
    monkeypatch.setattr(verifier_module, "MAX_CACHED_TOKENS", 3)
    tokens = [ISSUER.token() for _ in range(4)]
    for token in tokens[:3]:
        verifier.verify(token)
    verifier.verify(tokens[0])
    verifier.verify(tokens[3])
    assert verifier.cached == 3
    monkeypatch.setattr(verifier_module, "_signed_payload", None)
    verifier.verify(tokens[0])
    with pytest.raises(TypeError):
        verifier.verify(tokens[1])


def test_an_unknown_key_is_told_apart(verifier):
    with pytest.raises(UnknownKey) as caught:
        verifier.verify(ISSUER.sign(ISSUER.claims(), OTHER))
    assert caught.value.key_id == OTHER.key_id


async def test_a_withdrawn_key_voids_tokens_that_were_seen_before(clock):
    known = {KEY.key_id: json.dumps(KEY.public_jwk)}

    async def load() -> dict[str, str]:
        return dict(known)

    keys = SigningKeys(load, clock)
    await keys.refresh()
    verifier = TokenVerifier(keys, clock)
    token = ISSUER.token()
    verifier.verify(token)
    known.clear()
    await keys.refresh()
    with pytest.raises(UnknownKey):
        verifier.verify(token)

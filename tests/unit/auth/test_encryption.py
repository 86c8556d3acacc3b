"""What is stored encrypted or hashed can be opened by its owner and purpose alone."""

from __future__ import annotations

import pytest

from exchange.auth.encryption import DecryptionError, Keyring
from exchange.runtime.config import Secret

KEYRING = Keyring(Secret("one secret of thirty-two characters"))
OTHER = Keyring(Secret("another secret of thirty-two chars."))


def test_what_was_encrypted_comes_back_and_is_never_the_same_twice() -> None:
    box = KEYRING.box("totp")
    first, second = box.encrypt(b"plain", "7"), box.encrypt(b"plain", "7")
    assert first != second
    assert b"plain" not in first
    # Another process of the same secret.
    assert Keyring(Secret("one secret of thirty-two characters")).box("totp").decrypt(first, "7") == b"plain"
    assert box.decrypt(second, "7") == b"plain"


@pytest.mark.parametrize("keyring", [KEYRING, OTHER])
@pytest.mark.parametrize("purpose", ["totp", "api-key"])
@pytest.mark.parametrize("owner", ["7", "8"])
def test_another_secret_purpose_or_owner_opens_nothing(keyring: Keyring, purpose: str, owner: str) -> None:
    sealed = KEYRING.box("totp").encrypt(b"plain", "7")
    if (keyring, purpose, owner) == (KEYRING, "totp", "7"):
        assert keyring.box(purpose).decrypt(sealed, owner) == b"plain"
        return
    with pytest.raises(DecryptionError):
        keyring.box(purpose).decrypt(sealed, owner)


@pytest.mark.parametrize("position", [0, 1, 13, -1])
def test_a_byte_that_changed_is_noticed(position: int) -> None:
    sealed = bytearray(KEYRING.box("totp").encrypt(b"plain", "7"))
    sealed[position] ^= 1
    with pytest.raises(DecryptionError):
        KEYRING.box("totp").decrypt(bytes(sealed), "7")


@pytest.mark.parametrize("stored", [b"", b"\x01", b"\x01" + bytes(11), b"\x01" + bytes(12)])
def test_what_is_too_short_is_refused(stored: bytes) -> None:
    with pytest.raises(DecryptionError):
        KEYRING.box("totp").decrypt(stored, "7")


def test_a_hash_depends_on_secret_purpose_and_where_each_part_ends() -> None:
    digest = KEYRING.keyed_hash("code").digest("ab", "c")
    assert len(digest) == 32
    assert KEYRING.keyed_hash("code").digest("ab", "c") == digest
    others = [
        OTHER.keyed_hash("code").digest("ab", "c"),
        KEYRING.keyed_hash("name").digest("ab", "c"),
        KEYRING.keyed_hash("code").digest("a", "bc"),
        KEYRING.keyed_hash("code").digest("abc"),
    ]
    assert len({digest, *others}) == 5

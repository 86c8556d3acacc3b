"""Profiles of the command line: whose eyes, which exchange, and one renewal at a time."""

import stat
import time
from pathlib import Path

import pytest

from pincex_client.cli import profiles
from pincex_client.cli.context import Settings
from pincex_client.cli.profiles import Profile, ProfileError
from pincex_client.cli.spans import span
from pincex_client.credentials import ApiKey, Fixed, LogIn, TokenSet
from tests.unit.client.test_credentials import API_KEY

PROFILE = Profile(name="ann", target="127.0.0.1:9", access_token="secret-access", refresh_token="secret-refresh")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PINCEX_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("PINCEX_HOME", str(tmp_path / "nothing-runs-here"))
    return tmp_path / "profiles"


def test_a_profile_is_for_its_owner_s_eyes_only(folder: Path) -> None:
    file = profiles.save(PROFILE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert profiles.load("ann") == PROFILE
    assert [path.name for path in folder.iterdir()] == ["ann.json"]


def test_a_profile_that_others_can_read_is_not_used() -> None:
    profiles.save(PROFILE).chmod(0o644)
    with pytest.raises(ProfileError, match="can be read by others"):
        profiles.load("ann")


@pytest.mark.parametrize("name", ["../ann", "", "a/b", ".hidden", "a" * 65])
def test_a_name_cannot_lead_elsewhere(name: str) -> None:
    with pytest.raises(ProfileError, match="no name of a profile"):
        profiles.load(name)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"target": "x", "surprise": 1}'])
def test_a_damaged_profile_says_what_to_do(content: str) -> None:
    profiles.save(PROFILE).write_text(content)
    with pytest.raises(ProfileError, match="log in again"):
        profiles.load("ann")


def test_secrets_do_not_show() -> None:
    assert "secret" not in repr(PROFILE)


def test_tokens_go_to_their_own_exchange_only() -> None:
    profiles.save(PROFILE)
    with pytest.raises(ProfileError, match=r"is for 127\.0\.0\.1:9, not for 127\.0\.0\.1:8"):
        Settings(target="127.0.0.1:8", profile="ann").stored_profile()
    assert Settings(target="http://127.0.0.1:9/", profile="ann").stored_profile() == PROFILE


def test_the_default_profile_is_used_for_its_exchange_and_for_no_other() -> None:
    default = Profile(name=profiles.DEFAULT, target="127.0.0.1:9", access_token="a", refresh_token="b")
    profiles.save(default)
    assert Settings().stored_profile() == default
    assert Settings(target="127.0.0.1:8").stored_profile() is None
    assert isinstance(Settings()._credentials(), LogIn)
    assert isinstance(Settings(account="demo")._credentials(), Fixed)
    assert isinstance(Settings(token="t")._credentials(), Fixed)


def test_a_profile_that_is_not_there_is_named() -> None:
    with pytest.raises(ProfileError, match="pincex login --profile ann"):
        Settings(profile="ann").stored_profile()


def test_a_key_s_profile_keeps_its_token_for_the_next_command() -> None:
    profile = Profile(
        name="bot",
        target="127.0.0.1:9",
        api_key=API_KEY,
        algorithm="HMAC_SHA256",
        key_material="AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    )
    credentials = profile.credentials()
    assert isinstance(credentials, ApiKey)
    assert credentials.tokens is None
    credentials._on_change(TokenSet("access", 2e9, "", API_KEY, "100001", "100001"))  # type: ignore[misc]
    again = profiles.load("bot")
    assert again is not None
    assert again.tokens is not None
    assert again.tokens.access_token == "access"


async def test_what_another_command_renewed_meanwhile_is_taken_over() -> None:
    profiles.save(PROFILE)
    credentials = PROFILE.credentials()
    newer = PROFILE.having(TokenSet("newer-access", time.time() + 300, "newer-refresh", "s", "1", "1"))
    profiles.save(newer)
    # Its own tokens are too old, and there is nobody to ask: without the file this would fail.
    assert await credentials.metadata() == (("authorization", "Bearer newer-access"),)


def test_spans_are_read_as_people_type_them() -> None:
    assert span("90d").days == 90
    assert span(" 12H ").total_seconds() == 43_200
    with pytest.raises(ValueError, match="no span of time"):
        span("soon")

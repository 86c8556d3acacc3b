"""Who the command line is, kept between commands: one file a profile, for its owner's eyes only.

A profile holds the tokens of a log-in or an API key, and the exchange that they are for: they are sent nowhere else. Files
lie in `$PINCEX_CONFIG_DIR`, else `$XDG_CONFIG_HOME/pincex`, else `~/.config/pincex`, with mode 0600.
"""

import contextlib
import fcntl
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from pincex_client.credentials import ApiKey, Credentials, LogIn, TokenSet
from pincex_client.signing import Ed25519Signer, HmacSigner, RequestSigner, decode_key

DEFAULT = "default"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class ProfileError(ValueError):
    """The profile cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One identity at one exchange: a log-in (`refresh_token`), or an API key (`api_key` and its `key_material`).

    `key_material` is the base64 of an HMAC secret, or of an Ed25519 private key.
    """

    name: str
    target: str
    ops_target: str = ""
    email: str = ""
    user_id: str = ""
    account: str = ""
    session_id: str = ""
    access_token: str = ""
    access_expires_at: float = 0.0
    refresh_token: str = ""
    api_key: str = ""
    algorithm: str = ""
    key_material: str = ""

    def __repr__(self) -> str:
        """Without secrets."""
        return f"Profile(name={self.name!r}, target={self.target!r}, account={self.account!r})"

    @property
    def tokens(self) -> TokenSet | None:
        """What stands in it; None for a key that was not exchanged yet."""
        if not self.access_token:
            return None
        return TokenSet(
            access_token=self.access_token,
            access_expires_at=self.access_expires_at,
            refresh_token=self.refresh_token,
            session_id=self.session_id,
            user_id=self.user_id,
            account=self.account,
        )

    def having(self, tokens: TokenSet) -> "Profile":
        """The same with other tokens."""
        return replace(
            self,
            access_token=tokens.access_token,
            access_expires_at=tokens.access_expires_at,
            refresh_token=tokens.refresh_token,
            session_id=tokens.session_id,
            user_id=tokens.user_id,
            account=tokens.account,
        )

    def credentials(self) -> Credentials:
        """What a client takes; renewed tokens are written back."""
        if self.api_key:
            return ApiKey(self._signer(), tokens=self.tokens, on_change=self._keep)
        return _StoredLogIn(self)

    def _keep(self, tokens: TokenSet) -> None:
        save(self.having(tokens))

    def _signer(self) -> RequestSigner:
        material = decode_key(self.key_material)
        return (Ed25519Signer if self.algorithm == "ED25519" else HmacSigner)(self.api_key, material)


class _StoredLogIn(LogIn):
    """A log-in that several commands share: one of them renews it, the others take what it wrote."""

    def __init__(self, profile: Profile) -> None:
        tokens = profile.tokens
        assert tokens is not None, "a log-in has tokens"
        super().__init__(tokens)
        self._profile = profile

    async def _renew(self) -> TokenSet:
        with _locked(self._profile.name):
            stored = load(self._profile.name)
            tokens = stored.tokens if stored is not None else None
            mine = self.tokens
            if tokens is not None and mine is not None and tokens.refresh_token != mine.refresh_token:
                return tokens
            renewed = await super()._renew()
            save(self._profile.having(renewed))
            return renewed


def load(name: str) -> Profile | None:
    """The profile, None where there is none. Raises ProfileError for a bad name, file or mode."""
    file = _file(name)
    try:
        with file.open(encoding="utf-8") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            if mode & 0o077:
                raise ProfileError(f"{file} can be read by others (mode {mode:04o}): chmod 600 it, or log in again")
            content = json.load(opened)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, ProfileError):
            raise
        raise ProfileError(f"{file} cannot be read: {error}; log in again") from None
    known = {field.name for field in fields(Profile)}
    if not isinstance(content, dict) or not known.issuperset(content) or "target" not in content:
        raise ProfileError(f"{file} is no profile; log in again")
    return Profile(**content)


def save(profile: Profile) -> Path:
    """Write it, whole or not at all, and return where."""
    file = _file(profile.name)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp makes it 0600.
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{profile.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        json.dump(asdict(profile), opened, indent=1)
    Path(temporary).replace(file)
    return file


def remove(name: str) -> bool:
    """Forget it; False where there was none."""
    try:
        _file(name).unlink()
    except FileNotFoundError:
        return False
    return True


def names() -> list[str]:
    """All profiles, by name."""
    return sorted(file.stem for file in _folder().glob("*.json") if _NAME.fullmatch(file.stem))


def _folder() -> Path:
    given = os.environ.get("PINCEX_CONFIG_DIR")
    if given:
        return Path(given).expanduser() / "profiles"
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "pincex" / "profiles"


def _file(name: str) -> Path:
    if _NAME.fullmatch(name) is None or name.startswith("."):
        raise ProfileError(f"{name!r} is no name of a profile: 1 to 64 letters, digits, `_`, `.` or `-`")
    return _folder() / f"{name}.json"


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """One process at a time: the exchange takes a refresh token that is used twice for a stolen one."""
    with _file(name).with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

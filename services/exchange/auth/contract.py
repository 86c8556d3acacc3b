"""What the parts of the auth service ask of one another. Each is made in `__main__`; tests put fakes in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from exchange.auth.store import Connection
from exchange.auth.users import User

# The purpose of the keyed hash of a normal address, by which attempts are counted.
LOGIN_NAME: Final = "login-name"
# Purposes of codes that are sent by mail.
VERIFY_EMAIL: Final = "verify-email"
RESET_PASSWORD: Final = "reset-password"  # noqa: S105 - a purpose


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a call comes from. `address` is an IP address; `user_agent` is what the client says of itself, cut."""

    address: str
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class Mail:
    """One message in plain text."""

    to: str
    subject: str
    text: str


class MailSender(Protocol):
    """Brings mails on their way."""

    async def send(self, mail: Mail) -> None:
        """Send or queue it, whether or not the address exists. Raises nothing: a failure is logged and counted."""
        ...


class MailCodes(Protocol):
    """Codes that prove an address: made, sent, checked, and never more of them than a person needs.

    `purpose` is VERIFY_EMAIL or RESET_PASSWORD. A code is stored as a keyed hash; a wrong try is counted against it.
    """

    async def send(self, user: User, purpose: str) -> None:
        """Make a code and send it, in the background; nothing where one went out just now. Raises nothing else than
        AUTH_UNAVAILABLE.
        """
        ...

    async def tell_owner(self, user: User) -> None:
        """Tell the owner of an address that somebody registered with it once more; in the background, and not often."""
        ...

    async def take(self, connection: Connection, user: User | None, purpose: str, code: str) -> bool:
        """Whether this is the code; in the caller's transaction, which commits either way: a right one is used up together
        with what it is for, a wrong try stays counted. With None the answer is no, after the same work.
        """
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """A guess that was let in. Until it is decided it counts as a failure, so that many at a time are no way around.

    `address` is whole; `number` says which one it is of its name's, 1 for the first within the window.
    """

    attempt_id: int
    name_hash: bytes
    address: str
    number: int


class Throttle(Protocol):
    """Slows guessing down, by name and by address, and locks log-ins. Passwords, mailed codes and codes of the second factor count.

    The caller ends each attempt in exactly one way; one that it never ends (a crash) stays a failure.
    """

    async def admit(self, email: str, address: str) -> Attempt:
        """Before any work, for a normal address whether or not it is known. Raises ServiceError TOO_MANY_ATTEMPTS with
        the time to wait, AUTH_UNAVAILABLE.
        """
        ...

    async def failed(self, attempt: Attempt, user_id: int | None, reason: str) -> None:
        """Record that it failed, and lock the user's log-in once there were too many. `user_id` None: no such user."""
        ...

    async def succeeded(self, attempt: Attempt) -> None:
        """Take it back, and forgive the failures of this name: the whole log-in went through."""
        ...

    async def withdrawn(self, attempt: Attempt) -> None:
        """Take it back and forgive nothing: the password was right and something else is asked for, such as a code."""
        ...


class SecondFactor(Protocol):
    """Codes of an authenticator, and recovery codes. The caller has checked the password where the contract wants it."""

    async def verify(self, user: User, code: str) -> bool:
        """Whether the code of the authenticator, or a recovery code, is right; it is used up by this."""
        ...

    async def begin(self, user: User) -> tuple[str, str]:
        """Make a secret that does not count yet; return it in base32, and as `otpauth:` URI. Raises SECOND_FACTOR_STATE."""
        ...

    async def confirm(self, user: User, code: str) -> list[str]:
        """Turn it on; return the recovery codes. Raises CODE_REFUSED, SECOND_FACTOR_STATE."""
        ...

    async def remove(self, user: User, code: str) -> None:
        """Turn it off. Raises CODE_REFUSED, SECOND_FACTOR_STATE."""
        ...

    async def renew_recovery_codes(self, user: User) -> list[str]:
        """Return new recovery codes; the old ones are void. Raises SECOND_FACTOR_STATE."""
        ...

    async def recovery_codes_left(self, user_id: int) -> int:
        """How many are unused."""
        ...

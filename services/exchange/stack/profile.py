"""What the profile says of an exchange as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exchange.runtime.config import DEVELOPMENT
from exchange.stack.errors import StackError

if TYPE_CHECKING:
    from exchange.stack.config import StackConfig


def check_profile(config: StackConfig, *, memory: bool, has_tls: bool) -> None:
    """Raises StackError, with what to do, for what must not be started."""
    host = config.tls.host
    if config.profile == DEVELOPMENT:
        if not config.tls.is_loopback:
            raise StackError(
                f"PINCEX_EDGE_HOST={host} can be reached from other machines, and the development profile lets everybody in "
                "without a password: set PINCEX_PROFILE=production, or leave PINCEX_EDGE_HOST out",
            )
    elif memory:
        raise StackError("with --memory there is no auth service, and the production profile knows nobody without one")
    elif not has_tls and not config.tls.is_loopback:
        raise StackError(
            f"PINCEX_EDGE_HOST={host} can be reached from other machines, and passwords must not go there in the clear: set "
            "PINCEX_TLS=on for a certificate of ours, or PINCEX_TLS_CERTIFICATE and PINCEX_TLS_KEY for your own",
        )

"""Which web pages may connect. A browser says which page it is; whatever says nothing is no browser's page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

# As the edge has it for REST.
_LOCAL: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")


def is_allowed(origins: Sequence[str], hosts: Sequence[str]) -> bool:
    """By the headers Origin and Host of a handshake: pages of this machine, and those that came from where they connect to.

    Without this any page that somebody on this machine looks at could act for the development profile's account.
    """
    if not origins:
        return True
    if len(origins) > 1 or len(hosts) != 1:
        return False
    origin = origins[0].lower()
    if _LOCAL.fullmatch(origin) is not None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        # No URL, such as "http://[".
        return False
    return parts.scheme in {"http", "https"} and parts.netloc != "" and parts.netloc == hosts[0].lower()

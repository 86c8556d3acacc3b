"""Who may act on whom: nobody changes anything of a user who has more rights."""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum
from typing import Final

from exchange.auth.users import User
from exchange.runtime.errors import ErrorReason, ServiceError
from exchange.runtime.principal import ADMIN, OPERATOR, Principal

_SERVICE: Final = "service"


class Standing(IntEnum):
    """How far roles reach. An auditor sees more than support and changes nothing: neither may act on an operator."""

    CUSTOMER = 0
    STAFF = 1
    OPERATOR = 2
    ADMIN = 3

    def check(self, user: User) -> None:
        """Raise ServiceError PERMISSION_DENIED where the user stands higher than who acts."""
        theirs = standing_of(user.roles)
        if theirs > self:
            raise ServiceError(
                ErrorReason.PERMISSION_DENIED, f"this user has more rights than you: it takes the role {theirs.name}"
            )


_STANDINGS: Final = {
    "support": Standing.STAFF,
    "auditor": Standing.STAFF,
    OPERATOR: Standing.OPERATOR,
    ADMIN: Standing.ADMIN,
}


def standing_of(roles: Collection[str]) -> Standing:
    """That of the highest of these roles."""
    return max((_STANDINGS.get(role, Standing.CUSTOMER) for role in roles), default=Standing.CUSTOMER)


def standing_of_caller(principal: Principal) -> Standing:
    """Of who calls. Another service of the exchange carries out what its own contract allowed, whoever it is about."""
    return Standing.ADMIN if principal.source == _SERVICE else standing_of(principal.roles)

"""Who may call a method, and how long it may take: what the contract says beside it, and whether a principal suffices.

Every method of `pincex.*` carries `option (pincex.common.v1.access)`. A server reads it from the descriptor when a service
is added; nothing is listed a second time, so nothing can be forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from exchange.runtime.errors import ErrorReason, ServiceError
from pincex.common.v1 import access_pb2, deadline_pb2

if TYPE_CHECKING:
    from exchange.runtime.principal import Principal

# What a scope or role is called in tokens and principals: the contract's name in lower case.
SCOPES: Final = frozenset(name.lower() for name, number in access_pb2.Access.Scope.items() if number)
ROLES: Final = frozenset(name.lower() for name, number in access_pb2.Role.items() if number)


class AccessError(Exception):
    """A method does not say who may call it, or says what makes no sense. The text names the method."""


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """How a method is guarded. Exactly one of `public`, `internal`, `scope` and `roles` says who may call it.

    `public`: anyone, without a principal, also while the server drains. `internal`: processes of the exchange, whose
    handler checks how they prove themselves; else as public. `scope`: principals that have it. `roles`: principals that
    have any of them. `audited`: each call is recorded. `ends_on_drain`: its streams know nothing of `Drain` and are
    ended as soon as it begins.
    """

    public: bool = False
    internal: bool = False
    scope: str = ""
    roles: frozenset[str] = frozenset()
    audited: bool = False
    ends_on_drain: bool = False

    def __post_init__(self) -> None:
        ways = (self.public, self.internal, bool(self.scope), bool(self.roles))
        if sum(ways) != 1:
            raise ValueError("exactly one of public, internal, scope and roles says who may call")

    @property
    def needs_principal(self) -> bool:
        """Whether the guard finds out who calls."""
        return not (self.public or self.internal)

    def check(self, principal: Principal) -> None:
        """Raise ServiceError SCOPE_MISSING or PERMISSION_DENIED where the principal does not suffice."""
        scope = self.scope
        if scope:
            if scope not in principal.scopes:
                raise ServiceError(ErrorReason.SCOPE_MISSING, metadata={"scope": scope})
        elif not any(principal.has_role(role) for role in self.roles):
            raise ServiceError(ErrorReason.PERMISSION_DENIED, f"this needs the role {' or '.join(sorted(self.roles))}")


def has_contract(service: str) -> bool:
    """Whether it is a service of our contracts: those of `pincex.*` that are generated and imported."""
    if not service.startswith("pincex."):
        return False
    try:
        descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return False
    return True


def policies_of(service: str) -> dict[str, MethodPolicy]:
    """Return the policy of each method of a service of the contracts, by the method's name.

    `service` is the full name, such as `pincex.trading.v1.OrderService`; its generated module must be imported. Raises
    AccessError where it is not known or a method's option is missing or senseless.
    """
    try:
        found: ServiceDescriptor = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise AccessError(f"{service} has no contract: say with a policy who may call it") from None
    return {method.name: policy_of(method) for method in found.methods}


def policy_of(method: MethodDescriptor) -> MethodPolicy:
    """Return what a method's option says. Raises AccessError where it is missing or senseless."""
    options = method.GetOptions()
    if not options.HasExtension(access_pb2.access):
        raise AccessError(f"{method.full_name} has no option (pincex.common.v1.access)")
    access = options.Extensions[access_pb2.access]
    unary = not (method.client_streaming or method.server_streaming)
    if access.audited and (access.public or access.internal or not unary):
        raise AccessError(f"{method.full_name}: only what a known caller asks for, once and at once, can be audited")
    try:
        return MethodPolicy(
            public=access.public,
            internal=access.internal,
            scope=_scope_name(access.scope),
            roles=frozenset(_role_name(role) for role in access.roles),
            audited=access.audited,
        )
    except ValueError as error:
        raise AccessError(f"{method.full_name}: {error}") from error


def deadline_of(method: MethodDescriptor) -> int:
    """Seconds after which the edge gives up on a call, 0 where the contract gives the method no time of its own."""
    return int(method.GetOptions().Extensions[deadline_pb2.deadline_seconds])


def _scope_name(number: int) -> str:
    if number == access_pb2.Access.SCOPE_UNSPECIFIED:
        return ""
    if number == access_pb2.Access.ADMIN:
        raise ValueError("the scope ADMIN lets roles count: a method asks for the role itself")
    return access_pb2.Access.Scope.Name(access_pb2.Access.Scope.ValueType(number)).lower()


def _role_name(number: int) -> str:
    if number == access_pb2.ROLE_UNSPECIFIED:
        raise ValueError("ROLE_UNSPECIFIED is nobody's role")
    return access_pb2.Role.Name(access_pb2.Role.ValueType(number)).lower()

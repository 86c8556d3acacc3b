"""What the edge needs to know of the contracts, read from the descriptor image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from google.api.http_pb2 import HttpRule

OUR_PACKAGES = "pincex."
# Operators and internal consumers only, whatever their paths are.
OPS_SERVICES = frozenset({"pincex.trading.v1.TradingAdminService", "pincex.journal.v1.EventService"})
OPS_PATH_PREFIX = "/admin"
# Between the instances of one service: no listener carries them.
INTERNAL_SERVICES = frozenset({"pincex.journal.v1.ReplicaService"})
# Served by every engine beside the contracts; they have no REST form.
INFRASTRUCTURE_SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
    "grpc.channelz.v1.Channelz",
)

_REPEATABLE = frozenset(
    {descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS, descriptor_pb2.MethodOptions.IDEMPOTENT},
)


class ContractError(Exception):
    """The descriptor image is missing or cannot be read."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: `http` holds `(verb, path template)` of each REST binding."""

    package: str
    service: str
    name: str
    streaming: bool
    repeatable: bool
    http: tuple[tuple[str, str], ...]

    @property
    def grpc_path(self) -> str:
        """The `:path` of a gRPC call."""
        return f"/{self.service}/{self.name}"

    @property
    def ops_only(self) -> bool:
        """Whether only the ops listener may carry it."""
        return self.service in OPS_SERVICES or any(path.startswith(OPS_PATH_PREFIX) for _, path in self.http)


@dataclass(frozen=True, slots=True)
class Contract:
    """All our RPCs in one image, in the order of the image."""

    image: Path
    methods: tuple[Method, ...]

    def carried(self, *, public: bool) -> tuple[Method, ...]:
        """The methods that the public edge, or the ops listener, carries."""
        return tuple(
            method
            for method in self.methods
            if method.service not in INTERNAL_SERVICES and not (public and method.ops_only)
        )

    def rest_paths(self, *, public: bool) -> tuple[str, ...]:
        """`"GET /api/v1/..."` of every REST binding, sorted by path."""
        found = {(path, verb) for method in self.carried(public=public) for verb, path in method.http}
        return tuple(f"{verb} {path}" for path, verb in sorted(found))

    def method_at(self, path: str) -> Method | None:
        """The method that a GET of exactly this path calls."""
        return next((method for method in self.methods if ("GET", path) in method.http), None)


def read_contract(image: Path) -> Contract:
    """Reads `buf build -o` output (a serialized `FileDescriptorSet`); raises ContractError."""
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes())
    except FileNotFoundError:
        raise ContractError(f"the descriptor image {image} does not exist: run `make proto`") from None
    except Exception as error:  # protobuf's DecodeError differs by its implementation
        raise ContractError(f"the descriptor image {image} cannot be read: {error}") from error
    methods = tuple(
        _method(file.package, service.name, method)
        for file in files.file
        if file.package.startswith(OUR_PACKAGES)
        for service in file.service
        for method in service.method
    )
    if not methods:
        raise ContractError(f"the descriptor image {image} has no service of ours")
    return Contract(image, methods)


def _method(package: str, service: str, method: descriptor_pb2.MethodDescriptorProto) -> Method:
    rule = method.options.Extensions[annotations_pb2.http]
    return Method(
        package=package,
        service=f"{package}.{service}",
        name=method.name,
        streaming=method.client_streaming or method.server_streaming,
        repeatable=method.options.idempotency_level in _REPEATABLE,
        http=tuple(_bindings(rule)),
    )


def _bindings(rule: HttpRule) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for binding in (rule, *rule.additional_bindings):
        kind = binding.WhichOneof("pattern")
        if kind is None:
            continue
        if kind == "custom":
            found.append((binding.custom.kind, binding.custom.path))
        else:
            found.append((kind.upper(), getattr(binding, kind)))
    return found

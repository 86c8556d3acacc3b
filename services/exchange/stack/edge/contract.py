"""What the edge needs to know of the contracts, read from the descriptor image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool

from exchange.runtime.access import AccessError, MethodPolicy, deadline_of, policy_of

if TYPE_CHECKING:
    from pathlib import Path

    from google.api.http_pb2 import HttpRule
    from google.protobuf.descriptor import MethodDescriptor

OUR_PACKAGES = "pincex."
HEALTH_SERVICE = "grpc.health.v1.Health"
# Served by every engine beside the contracts; they have no REST form.
INFRASTRUCTURE_SERVICES = (
    HEALTH_SERVICE,
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.reflection.v1.ServerReflection",
    "grpc.channelz.v1.Channelz",
)

_REPEATABLE = frozenset(
    {descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS, descriptor_pb2.MethodOptions.IDEMPOTENT},
)


class ContractError(Exception):
    """The descriptor image is missing, cannot be read, or leaves open who may call a method."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: `http` holds `(verb, path template)` of each REST binding; `deadline_s` is 0 where it has the usual one."""

    package: str
    service: str
    name: str
    streaming: bool
    repeatable: bool
    http: tuple[tuple[str, str], ...]
    access: MethodPolicy
    deadline_s: int = 0

    @property
    def grpc_path(self) -> str:
        """The `:path` of a gRPC call."""
        return f"/{self.service}/{self.name}"

    @property
    def ops_only(self) -> bool:
        """Whether only the ops listener may carry it."""
        return bool(self.access.roles)

    @property
    def takes_credentials(self) -> bool:
        """Whether it is how strangers become known, or prove an address: what guessing is tried at."""
        return self.access.public and not self.repeatable


@dataclass(frozen=True, slots=True)
class Contract:
    """All our RPCs in one image, in the order of the image."""

    image: Path
    methods: tuple[Method, ...]

    def carried(self, *, public: bool) -> tuple[Method, ...]:
        """The methods that the public edge, or the ops listener, carries."""
        return tuple(
            method for method in self.methods if not method.access.internal and not (public and method.ops_only)
        )

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
    methods = tuple(_method(method) for method in _our_methods(files))
    if not methods:
        raise ContractError(f"the descriptor image {image} has no service of ours")
    return Contract(image, methods)


def _our_methods(files: descriptor_pb2.FileDescriptorSet) -> list[MethodDescriptor]:
    # A pool of their own: the image may be that of another build than the generated modules.
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return [
        pool.FindMethodByName(f"{file.package}.{service.name}.{method.name}")
        for file in files.file
        if file.package.startswith(OUR_PACKAGES)
        for service in file.service
        for method in service.method
    ]


def _method(method: MethodDescriptor) -> Method:
    options = method.GetOptions()
    service = method.containing_service
    try:
        access = policy_of(method)
    except AccessError as error:
        # What is left open must not be carried, and nobody would miss it: so it stops the start.
        raise ContractError(str(error)) from error
    return Method(
        package=service.file.package,
        service=service.full_name,
        name=method.name,
        streaming=method.client_streaming or method.server_streaming,
        repeatable=options.idempotency_level in _REPEATABLE,
        http=tuple(_bindings(options.Extensions[annotations_pb2.http])),
        access=access,
        deadline_s=deadline_of(method),
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

"""Server reflection in both its versions: grpcurl asks for v1 first, older tools know v1alpha only.

The Python package has v1alpha alone; v1 is the same messages in another package, so its descriptors are made from
those of v1alpha and its calls served by the same code.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer  # the public name is not in the stubs

from exchange.runtime.access import policy_of

V1ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"
V1: Final = "grpc.reflection.v1.ServerReflection"
_V1_FILE: Final = "grpc/reflection/v1/reflection.proto"


def reflection_servicer(service_names: Iterable[str]) -> Any:
    """Return the servicer that tells of these services and of reflection itself."""
    _describe_v1()
    return ReflectionServicer({*service_names, V1ALPHA, V1})


def exchange_services() -> list[str]:
    """All services of our contracts that a listener carries: behind the edge one server describes what many serve.

    Their generated modules are imported (30 ms): that is how the default pool learns of them.
    """
    found = []
    for module in pkgutil.walk_packages(importlib.import_module("pincex").__path__, "pincex."):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(module.name).DESCRIPTOR
            found += [name.full_name for name in file.services_by_name.values() if _is_carried(name)]
    return found


def _is_carried(service: ServiceDescriptor) -> bool:
    return not all(policy_of(method).internal for method in service.methods)


def add_v1alpha(servicer: Any, server: Any) -> None:
    """Register as `grpc.reflection.v1alpha`."""
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]


def add_v1(servicer: Any, server: Any) -> None:
    """Register as `grpc.reflection.v1`."""
    add_v1alpha(servicer, _Renamed(server))


class _Renamed:
    """Registers under the name of v1 what calls itself v1alpha."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Take nothing: the registered handlers are the same ones by name."""

    def add_registered_method_handlers(self, _service: str, handlers: Any) -> None:
        self._server.add_registered_method_handlers(V1, handlers)


def _describe_v1() -> None:
    """Add v1's file to the default pool once, so that tools that describe it find it."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(_V1_FILE)
    except KeyError:
        file = descriptor_pb2.FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        file.name = _V1_FILE
        file.package = "grpc.reflection.v1"
        file.ClearField("options")
        for message in file.message_type:
            for field in message.field:
                if field.type_name:
                    field.type_name = field.type_name.replace(".v1alpha.", ".v1.")
        for method in file.service[0].method:
            method.input_type = method.input_type.replace(".v1alpha.", ".v1.")
            method.output_type = method.output_type.replace(".v1alpha.", ".v1.")
        pool.AddSerializedFile(file.SerializeToString())

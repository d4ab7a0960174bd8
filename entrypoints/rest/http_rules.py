"""Which path leads to which method, as the google.api.http options of the contract say."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import Default, DescriptorPool

from entrypoints.rest.path_template import PathTemplate


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One way to a method. `body` and `response_body` are a field's name, `*` for the whole message, or empty."""

    verb: str
    template: PathTemplate
    body: str
    response_body: str
    method: MethodDescriptor


def http_rules(services: Iterable[str], pool: DescriptorPool | None = None) -> Iterator[HttpRule]:
    """Yields the rules of all methods of the services, additional bindings included.

    A method whose client streams has no option, and no path.
    """
    for service in services:
        for method in (pool or Default()).FindServiceByName(service).methods:
            rule = method.GetOptions().Extensions[annotations_pb2.http]
            for binding in (rule, *rule.additional_bindings):
                if kind := binding.WhichOneof("pattern"):
                    verb, path = (
                        (binding.custom.kind, binding.custom.path)
                        if kind == "custom"
                        else (kind.upper(), getattr(binding, kind))
                    )
                    yield HttpRule(verb, PathTemplate(path), binding.body, binding.response_body, method)

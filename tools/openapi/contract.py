"""The contract with its comments, as `buf build` describes it: generated code has no comments any more."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

PACKAGE = "chatback.v1"
MESSAGES, ENUMS, SERVICES = 4, 5, 6
"""Where they stand in a file, by descriptor.proto."""
_PARTS: dict[int, dict[str, int]] = {
    MESSAGES: {"field": 2, "nested_type": 3, "enum_type": 4},
    ENUMS: {"value": 2},
    SERVICES: {"method": 2},
}


@dataclass(frozen=True, slots=True)
class Contract:
    """All types by name, the services, and what is said of everything that has a full name."""

    pool: DescriptorPool
    services: tuple[ServiceDescriptor, ...]
    comments: Mapping[str, str]


def read_contract(image: bytes) -> Contract:
    """Returns the contract that an image (a FileDescriptorSet with source info) describes."""
    pool, files = DescriptorPool(), FileDescriptorSet.FromString(image).file
    for file in files:
        pool.Add(file)
    ours = [file for file in files if file.package == PACKAGE]
    names = [f"{PACKAGE}.{service.name}" for file in ours for service in file.service]
    comments = {name: text for file in ours for name, text in _comments(file)}
    return Contract(pool, tuple(map(pool.FindServiceByName, names)), comments)


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    said = {tuple(place.path): _paragraphs(place.leading_comments) for place in file.source_code_info.location}
    for kind, things in ((MESSAGES, file.message_type), (ENUMS, file.enum_type), (SERVICES, file.service)):
        for index, thing in enumerate(things):
            for path, name in _names(kind, thing, (kind, index), file.package):
                yield name, said.get(path, "")


def _names(kind: int, thing: Any, path: tuple[int, ...], parent: str) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yields the paths and full names of a message, an enum or a service, and of all in it."""
    name = f"{parent}.{thing.name}"
    yield path, name
    for part, number in _PARTS[kind].items():
        for index, inner in enumerate(getattr(thing, part)):
            place = (*path, number, index)
            if part in ("nested_type", "enum_type"):
                yield from _names(MESSAGES if part == "nested_type" else ENUMS, inner, place, name)
            else:
                yield place, f"{name}.{inner.name}"


def _paragraphs(comment: str) -> str:
    """Joins lines that belong together; an empty line and the list of reasons begin a paragraph."""
    paragraphs: list[list[str]] = [[]]
    for line in map(str.strip, comment.splitlines()):
        if not line or line.startswith("Reasons:"):
            paragraphs.append([])
        if line:
            paragraphs[-1].append(line)
    return "\n\n".join(" ".join(lines) for lines in paragraphs if lines)

"""A contract made up for tests, with every kind of field and of path that google.api.http knows."""

from google.api import annotations_pb2, http_pb2
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MessageOptions,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

Kind = FieldDescriptorProto
SERVICE = "library.Library"


def _field(number: int, name: str, kind: Kind.Type.ValueType, of: str = "", *, repeated: bool = False) -> Kind:
    label = Kind.LABEL_REPEATED if repeated else Kind.LABEL_OPTIONAL
    return Kind(name=name, number=number, type=kind, label=label, type_name=of or None)


def _method(
    name: str, rule: http_pb2.HttpRule | None, *, reads: bool = False, writes: bool = False
) -> MethodDescriptorProto:
    book = ".library.Book"
    method = MethodDescriptorProto(
        name=name, input_type=book, output_type=book, client_streaming=reads, server_streaming=writes
    )
    if rule is not None:
        options = MethodOptions()
        options.Extensions[annotations_pb2.http].CopyFrom(rule)
        method.options.CopyFrom(options)
    return method


BOOK = DescriptorProto(
    name="Book",
    field=[
        _field(1, "name", Kind.TYPE_STRING),
        _field(2, "page_count", Kind.TYPE_INT32),
        _field(3, "copies_sold", Kind.TYPE_INT64),
        _field(4, "is_new", Kind.TYPE_BOOL),
        _field(5, "price", Kind.TYPE_DOUBLE),
        _field(6, "cover", Kind.TYPE_ENUM, ".library.Cover"),
        _field(7, "tags", Kind.TYPE_STRING, repeated=True),
        _field(8, "shelf", Kind.TYPE_MESSAGE, ".library.Shelf"),
        _field(9, "shelves", Kind.TYPE_MESSAGE, ".library.Shelf", repeated=True),
        _field(10, "printed", Kind.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
        _field(11, "extra", Kind.TYPE_MESSAGE, ".google.protobuf.Struct"),
        _field(12, "notes", Kind.TYPE_MESSAGE, ".library.Book.NotesEntry", repeated=True),
        _field(13, "scan", Kind.TYPE_BYTES),
        _field(14, "sequel", Kind.TYPE_MESSAGE, ".library.Book"),
    ],
    nested_type=[
        DescriptorProto(
            name="NotesEntry",
            field=[_field(1, "key", Kind.TYPE_STRING), _field(2, "value", Kind.TYPE_STRING)],
            options=MessageOptions(map_entry=True),
        )
    ],
)
SHELF = DescriptorProto(
    name="Shelf",
    field=[_field(1, "name", Kind.TYPE_STRING), _field(2, "height_cm", Kind.TYPE_INT32)],
)
COVER = EnumDescriptorProto(
    name="Cover",
    value=[
        EnumValueDescriptorProto(name="COVER_UNSPECIFIED", number=0),
        EnumValueDescriptorProto(name="COVER_HARD", number=1),
    ],
)
METHODS = [
    _method(
        "Get",
        http_pb2.HttpRule(
            get="/v1/{name=books/*}",
            additional_bindings=[
                http_pb2.HttpRule(get="/v1/{shelf.name=shelves/*}/books/{name}"),
                http_pb2.HttpRule(custom=http_pb2.CustomHttpPattern(kind="SEARCH", path="/v1/{name=archive/**}")),
            ],
        ),
    ),
    _method("Create", http_pb2.HttpRule(post="/v1/books", body="*")),
    _method("Place", http_pb2.HttpRule(put="/v1/books/{name}:place", body="shelf", response_body="shelf")),
    _method("Watch", http_pb2.HttpRule(get="/v1/books/{name}:watch"), writes=True),
    _method("Scan", None, reads=True),
]

POOL = DescriptorPool()
for file in (timestamp_pb2, struct_pb2):
    POOL.AddSerializedFile(file.DESCRIPTOR.serialized_pb)
POOL.Add(
    FileDescriptorProto(
        name="library.proto",
        package="library",
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto", "google/protobuf/struct.proto"],
        message_type=[BOOK, SHELF],
        enum_type=[COVER],
        service=[ServiceDescriptorProto(name="Library", method=METHODS)],
    )
)
Book: type[Message] = GetMessageClass(POOL.FindMessageTypeByName("library.Book"))

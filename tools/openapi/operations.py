"""One operation for each way to a method."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from entrypoints.grpc.pipeline import PUBLIC_METHODS
from entrypoints.rest.http_rules import HttpRule
from entrypoints.rest.proto_json import is_map, message_in
from entrypoints.rest.request import CURSOR
from tools.openapi.errors import ErrorResponses
from tools.openapi.failures import Failures
from tools.openapi.schemas import Schema, Schemas

_SENTENCE = re.compile(r"(.+?)\.(?:\s|$)", re.DOTALL)
_VARIABLE = re.compile(r"\{([A-Za-z0-9_.]+)=[^{}]+\}")
_STREAM = (
    "A stream of events (SSE). Of each event `data:` is a {data} as JSON, `event:` is the name of what happened and "
    "`id:` its seq. Lines that begin with a colon come every 15 seconds and mean nothing. An event named `error`, "
    "whose `data:` is an Error, ends a stream that failed after it had begun; the run goes on."
)
_NOTHING_LEFT = "The run has ended and nothing is left of it after the cursor; an EventSource does not come back."


@dataclass(frozen=True, slots=True)
class Operations:
    """Writes the operations of the contract."""

    schemas: Schemas
    failures: Failures
    errors: ErrorResponses

    def of(self, rule: HttpRule, name: str) -> dict[str, Any]:
        """Returns the operation of a rule under this operationId."""
        method, text = rule.method, self.schemas.said(rule.method)
        public = f"/{method.containing_service.full_name}/{method.name}" in PUBLIC_METHODS
        operation: dict[str, Any] = {
            "tags": [method.containing_service.name],
            "operationId": name,
            "summary": summary(text),
            "description": text,
            "parameters": [*self._path(rule), *self._query(rule), *self._headers(method)],
            "responses": {
                "200": self._stream(method) if method.server_streaming else self._answer(rule),
                **({"204": {"description": _NOTHING_LEFT, **_TRACED}} if _resumes(method) else {}),
                **{
                    str(http): self.errors.of(http, found)
                    for http, found in self.failures.of(rule, public=public).items()
                },
            },
        }
        if rule.body:
            operation["requestBody"] = self._body(rule)
        if public:
            operation["security"] = []
        if method.GetOptions().deprecated:
            operation["deprecated"] = True
        return operation

    def _path(self, rule: HttpRule) -> Iterator[Schema]:
        for name in rule.template.fields:
            field = _field(rule.method.input_type, name)
            yield {"name": name, "in": "path", "required": True, **self._told(field)}

    def _query(self, rule: HttpRule) -> Iterator[Schema]:
        if rule.body == "*":
            return
        elsewhere = {*rule.template.fields, rule.body}
        for name, field in _leaves(rule.method.input_type, "", ""):
            if name not in elsewhere and name.partition(".")[0] != rule.body:
                needed = {"required": True} if self.schemas.needs(field) else {}
                yield {"name": _json_name(rule.method.input_type, name), "in": "query", **needed, **self._told(field)}

    def _headers(self, method: MethodDescriptor) -> Iterator[Schema]:
        yield {"$ref": "#/components/parameters/X-Request-Id"}
        if _resumes(method):
            yield {"$ref": "#/components/parameters/Last-Event-ID"}

    def _told(self, field: FieldDescriptor) -> Schema:
        return {"description": self.schemas.said(field), "schema": self.schemas.parameter(field)}

    def _body(self, rule: HttpRule) -> Schema:
        request = rule.method.input_type
        if rule.body == "*":
            schema = {"title": request.name, **self.schemas.body(request, rule.template.fields)}
            needed = "required" in schema
        else:
            field = request.fields_by_name[rule.body]
            schema, needed = self.schemas.field(field, taken=True), self.schemas.needs(field)
        return {"required": needed, "content": {"application/json": {"schema": schema}}}

    def _answer(self, rule: HttpRule) -> Schema:
        response = rule.method.output_type
        schema = self.schemas.answered(response)
        if rule.response_body:
            schema = self.schemas.field(response.fields_by_name[rule.response_body], taken=False)
        return {
            "description": summary(self.schemas.said(response)) + ".",
            **_TRACED,
            "content": {"application/json": {"schema": schema}},
        }

    def _stream(self, method: MethodDescriptor) -> Schema:
        data = self.schemas.answered(method.output_type)
        text = _STREAM.format(data=method.output_type.name)
        return {"description": text, **_TRACED, "content": {"text/event-stream": {"schema": _event(data)}}}


_TRACED = {"headers": {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}}


def _event(data: Schema) -> Schema:
    """Returns one event of a stream: OpenAPI 3.1 has no words for the stream itself."""
    properties = {
        "id": {"type": "string", "description": "The event's seq."},
        "event": {"type": "string", "description": "The name of what happened, or `error`."},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
    }
    return {"description": "One event of the stream.", "type": "object", "properties": properties, "required": ["data"]}


def path_of(rule: HttpRule) -> str:
    """Returns the path with its variables as OpenAPI has them, `{name}` for `{name=shelves/*}`."""
    return _VARIABLE.sub(r"{\1}", rule.template.text)


def summary(text: str) -> str:
    """Returns the first sentence without its full stop."""
    found = _SENTENCE.match(text)
    return found[1] if found else text


def _resumes(method: MethodDescriptor) -> bool:
    return bool(method.server_streaming) and CURSOR in method.input_type.fields_by_name


def _leaves(message: Descriptor, path: str, seen: str) -> Iterator[tuple[str, FieldDescriptor]]:
    """Yields what a query can hold, by dotted name; a message that holds itself is followed once."""
    for field in message.fields:
        inner = message_in(field)
        if inner is None and not is_map(field):
            yield path + field.name, field
        elif inner is not None and not field.is_repeated and inner.full_name not in seen:
            yield from _leaves(inner, f"{path}{field.name}.", f"{seen} {inner.full_name}")


def _fields(message: Descriptor | None, path: str) -> Iterator[FieldDescriptor]:
    for name in path.split("."):
        if message is None:
            raise ValueError(f"{path!r} leads through a field that is no message")
        field = message.fields_by_name[name]
        yield field
        message = field.message_type


def _field(message: Descriptor, path: str) -> FieldDescriptor:
    return list(_fields(message, path))[-1]


def _json_name(message: Descriptor, path: str) -> str:
    return ".".join(field.json_name for field in _fields(message, path))

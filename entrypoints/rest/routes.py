"""The methods that can be called over REST, and which of them a path leads to."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from entrypoints.grpc.pipeline import PUBLIC_METHODS
from entrypoints.rest import request
from entrypoints.rest.events import Frame, frame_for
from entrypoints.rest.http_rules import HttpRule
from entrypoints.rest.path_template import PathTemplate
from entrypoints.rest.refusals import METHOD_NOT_ALLOWED, PATH_UNKNOWN, Refused


@dataclass(frozen=True, slots=True)
class Route:
    """A method at a path, with all that a call needs and need not be looked up again."""

    verb: str
    template: PathTemplate
    body: str
    response_body: str
    is_public: bool
    streams: bool
    resumes: bool
    request: type[Message]
    frame: Frame
    call: Any

    def message(self, values: tuple[str, ...], query: str, body: bytes, last_event_id: bytes) -> Message:
        """Returns the request of a call. Raises InvalidField, which says where in the HTTP request it is wrong."""
        message = self.request()
        if body:
            request.fill_from_body(message, self.body, body)
        if query:
            request.fill_from_query(message, query, (*self.template.fields, self.body))
        for field, value in zip(self.template.fields, values, strict=True):
            request.fill_from_path(message, field, value)
        if last_event_id and self.resumes:
            request.fill_from_last_event_id(message, last_event_id)
        return message


class Routes:
    """All routes; those with the fewest variables are tried first, so that a literal wins over a variable."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_verb: dict[str, list[Route]] = {}
        for route in sorted(routes, key=lambda route: len(route.template.fields)):
            self._by_verb.setdefault(route.verb, []).append(route)

    def find(self, verb: str, path: str) -> tuple[Route, tuple[str, ...]]:
        """Returns the route and the values of its path's fields. Raises Refused."""
        for route in self._by_verb.get(verb, ()):
            if (values := route.template.match(path)) is not None:
                return route, values
        allowed = [
            verb
            for verb, routes in self._by_verb.items()
            if any(route.template.match(path) is not None for route in routes)
        ]
        raise not_allowed(allowed) if allowed else Refused(PATH_UNKNOWN)


def not_allowed(allowed: list[str]) -> Refused:
    """Returns the refusal that names the verbs that a path takes."""
    return Refused(METHOD_NOT_ALLOWED, (b"allow", ", ".join(sorted(allowed)).encode()))


def routes_over(channel: grpc.aio.Channel, rules: Iterable[HttpRule]) -> Routes:
    """Returns a route for each rule, whose calls go through the channel."""
    return Routes(_route(channel, rule) for rule in rules)


def _route(channel: grpc.aio.Channel, rule: HttpRule) -> Route:
    method = rule.method
    name = f"/{method.containing_service.full_name}/{method.name}"
    request_type, response_type = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    make = channel.unary_stream if method.server_streaming else channel.unary_unary
    return Route(
        verb=rule.verb,
        template=rule.template,
        body=rule.body,
        response_body=rule.response_body,
        is_public=name in PUBLIC_METHODS,
        streams=method.server_streaming,
        resumes=method.server_streaming and request.CURSOR in method.input_type.fields_by_name,
        request=request_type,
        frame=frame_for(method.output_type),
        call=make(
            name,
            request_serializer=request_type.SerializeToString,
            response_deserializer=response_type.FromString,
        ),
    )

"""The whole document: OpenAPI 3.1, made of the contract and of nothing that changes from one making to the next."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from entrypoints.rest.http_rules import HttpRule, http_rules
from entrypoints.rest.request import CURSOR
from tools.openapi.contract import Contract
from tools.openapi.errors import HEADERS, ErrorResponses, error_schemas
from tools.openapi.failures import Failures
from tools.openapi.operations import Operations, path_of
from tools.openapi.pages import TAG, pages
from tools.openapi.schemas import Schemas

ABOUT = """\
{description}

The API is gRPC; this is the same over HTTP, where each call has a path.

- **Names** of fields are in camelCase; requests may also have them in snake_case, as the contract does.
- **JSON** is that of Protocol Buffers: 64-bit integers are strings, enums are names, times are RFC 3339, bytes are
  base64, and in a request `null` is the same as nothing. In answers plain fields are always there, even if empty.
- **Errors** are AIP-193: go by the `reason` of the ErrorInfo. Any request can also be METHOD_NOT_ALLOWED (405), where
  the path takes other methods.
- **Streams** are server-sent events; one that was cut goes on with the header `Last-Event-ID`.
- **Calls are signed** with `Authorization: Bearer <access token>`, which AuthService.Login returns."""
PARAMETERS: dict[str, Any] = {
    "X-Request-Id": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Names the call in the service's log; 1 to 128 visible ASCII characters, else it is replaced.",
        "schema": {"type": "string"},
    },
    "Last-Event-ID": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": f"The id of the last event that the client has; it counts more than {CURSOR} in the query.",
        "schema": {"type": "string", "pattern": "^[0-9]{0,10}$"},
    },
}
SECURITY = {
    "bearerAuth": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The access token of a session, from AuthService.Login or AuthService.RefreshTokens.",
    }
}


def document(contract: Contract, *, version: str, description: str) -> dict[str, Any]:
    """Returns the document of all services of a contract."""
    schemas, failures, errors = Schemas(contract.comments), Failures(contract), ErrorResponses()
    operations = Operations(schemas, failures, errors)
    paths: dict[str, Any] = {}
    for rule, name in _named(contract):
        paths.setdefault(path_of(rule), {})[rule.verb.lower()] = operations.of(rule, name)
    return {
        "openapi": "3.1.1",
        "info": {"title": "ChatBack", "version": version, "description": ABOUT.format(description=description)},
        "servers": [{"url": "/"}],
        "security": [{"bearerAuth": []}],
        "tags": [*({"name": each.name, "description": schemas.said(each)} for each in contract.services), TAG],
        "paths": paths | pages(),
        "components": {
            "schemas": _sorted(schemas.components | error_schemas(failures.reasons())),
            "responses": _sorted(errors.components),
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": SECURITY,
        },
    }


def _named(contract: Contract) -> Iterator[tuple[HttpRule, str]]:
    """Yields all rules with names of their own: further ways to a method have a number."""
    seen: Counter[str] = Counter()
    for rule in http_rules([service.full_name for service in contract.services], contract.pool):
        name = f"{rule.method.containing_service.name}_{rule.method.name}"
        seen[name] += 1
        yield rule, name if seen[name] == 1 else f"{name}_{seen[name]}"


def _sorted(parts: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(parts.items()))

"""What is served over HTTP beside the API."""

from typing import Any

from tools.openapi.schemas import Schema

TAG = {"name": "Pages", "description": "What is served beside the API, to anybody."}
_TEXT: Schema = {"type": "string"}


def pages() -> dict[str, Any]:
    """Returns the paths of the pages."""
    alive = {"type": "object", "properties": {"status": {"const": "alive"}}, "required": ["status"]}
    ready = _json("All that the service needs answers.", _readiness("ready"))
    not_ready = _json("Something that the service needs does not answer.", _readiness("not ready"))
    return {
        "/healthz": _page("alive", "Says that the process lives", {"200": _json("It lives.", alive)}),
        "/readyz": _page("ready", "Says whether calls can be served", {"200": ready, "503": not_ready}),
        "/metrics": _page(
            "metrics", "Returns the metrics of this replica", {"200": _content("For Prometheus.", "text/plain", _TEXT)}
        ),
        "/openapi.json": _page("openapi", "Returns this document", {"200": _json("OpenAPI 3.1.", {"type": "object"})}),
        "/docs": _page("docs", "Shows this document to people", {"200": _content("A page.", "text/html", _TEXT)}),
    }


def _readiness(status: str) -> Schema:
    states = {"type": "string", "enum": ["ok", "unavailable"]}
    properties = {"status": {"const": status}, "dependencies": {"type": "object", "additionalProperties": states}}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _page(name: str, summary: str, responses: dict[str, Schema]) -> dict[str, Any]:
    operation = {"tags": [TAG["name"]], "operationId": f"Pages_{name}", "summary": summary}
    return {"get": {**operation, "security": [], "responses": responses}}


def _json(text: str, schema: Schema) -> Schema:
    return _content(text, "application/json", schema)


def _content(text: str, kind: str, schema: Schema) -> Schema:
    return {"description": text, "content": {kind: {"schema": schema}}}

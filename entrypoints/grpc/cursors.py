"""Where a stream of events can be gone on with, as ErrorInfo's metadata tells it."""

from typing import Any


def cursor_after(response: Any) -> dict[str, str]:
    """Returns the cursor of a client that has taken the response; nothing where the response is no event."""
    return _cursor(response.event, 0) if hasattr(response, "event") else {}


def cursor_before(response: Any) -> dict[str, str]:
    """Returns the cursor of a client that has taken everything up to the response, without it."""
    return _cursor(response.event, 1) if hasattr(response, "event") else {}


def is_last(response: Any) -> bool:
    """Says whether the response ends an answer that is whole, so that nothing comes after it."""
    return hasattr(response, "event") and response.event.WhichOneof("event") == "completed"


def cursor_alone(response: Any) -> Any:
    """Returns what is needed of a response for its cursor."""
    alone = type(response)()
    if hasattr(response, "event"):
        alone.event.run_id, alone.event.seq = response.event.run_id, response.event.seq
    return alone


def _cursor(event: Any, back: int) -> dict[str, str]:
    return {"run_id": event.run_id, "last_seq": str(event.seq - back)}

"""Places where the fault suite lets a process die or stop. Nothing happens there in production."""

from collections.abc import Callable

FAILPOINTS = (
    "before_begin_commit",
    "after_begin_commit",
    "after_piece",
    "before_append",
    "after_append_before_publish",
    "after_publish",
    "before_finish",
    "after_finish_before_publish",
    "after_cancel_commit",
    "after_fence_expired",
    "after_adopt",
    "before_leave",
    "after_leave",
)
"""All there are."""

_listeners: list[Callable[[str], None]] = []


def failpoint(name: str) -> None:
    """Says that the program is at the place `name`, one of `FAILPOINTS`."""
    for reached in _listeners:
        reached(name)


def on_failpoint(reached: Callable[[str], None]) -> None:
    """Has every failpoint call this, in this process, from now on. For tests alone."""
    _listeners.append(reached)

"""Structured logs: lines for people in a terminal, JSON everywhere else."""

import logging
import sys
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor

SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

FRAMES_ALONE = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
"""Renders exceptions without local variables: those hold tokens and users' words."""


def configure_logs(level: str, style: str, *, worker: int | None = None) -> None:
    """Sends our own log and that of libraries (from warnings on) to standard error; each line names the worker."""
    shared = [*SHARED, _naming(worker)] if worker is not None else SHARED
    in_terminal = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if in_terminal
        else structlog.processors.JSONRenderer(_json)
    )
    failures: list[Processor] = [] if in_terminal else [FRAMES_ALONE]
    structlog.configure(
        processors=[*shared, *failures, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *failures, renderer],
        )
    )
    logging.basicConfig(
        handlers=[handler], level=max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]), force=True
    )
    # The pool tells twice a second, with a traceback, that the database is away; so does every call, in a line.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)


def _naming(worker: int) -> Processor:
    def name(_: Any, __: str, event: EventDict) -> EventDict:
        event["worker"] = worker
        return event

    return name


def _json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()

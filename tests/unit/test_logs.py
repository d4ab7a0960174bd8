"""Logs are lines for people or JSON for programs; no local variable of a traceback gets into them."""

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import structlog

from entrypoints.logs import configure_logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Puts back how this process logs: the other tests share it."""
    root = logging.getLogger()
    handlers, level, before = list(root.handlers), root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


def fail() -> None:
    password = "hunter2"
    raise RuntimeError(f"{len(password)} characters")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger().info("call", code="OK", ms=1.5)
    (line,) = lines(capsys)
    assert (line["event"], line["code"], line["ms"], line["level"]) == ("call", "OK", 1.5, "info")
    assert line["timestamp"].endswith("Z")


def test_every_line_names_the_worker_that_wrote_it(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json", worker=2)
    structlog.get_logger().info("call")
    logging.getLogger("library").warning("odd")
    assert [line["worker"] for line in lines(capsys)] == [2, 2]


def test_without_a_terminal_logs_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "auto")
    structlog.get_logger().info("call")
    assert lines(capsys)[0]["event"] == "call"


def test_people_get_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    structlog.get_logger().info("call", code="OK")
    text = capsys.readouterr().err
    assert "call" in text
    assert not text.startswith("{")


def test_what_json_does_not_know_is_shown_as_python_does(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    structlog.get_logger().info("call", what={1, 2} - {2}, who=UUID(int=7), how=print)
    assert "built-in function print" in lines(capsys)[0]["how"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_what_is_less_than_the_level_is_left_out(capsys: pytest.CaptureFixture[str], level: str) -> None:
    configure_logs(level, "json")
    log = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)(name)
    written = [line["event"] for line in lines(capsys)]
    assert written == ["debug", "info", "warning", "error"][-len(written) :]
    assert written[0] == level


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_is_logged_without_local_variables(capsys: pytest.CaptureFixture[str], style: str) -> None:
    configure_logs("info", style)
    try:
        fail()
    except RuntimeError:
        structlog.get_logger().exception("call.broken")
    text = capsys.readouterr().err
    assert "RuntimeError" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_library_s_traceback_is_logged_without_local_variables(
    capsys: pytest.CaptureFixture[str], style: str
) -> None:
    configure_logs("info", style)
    try:
        fail()
    except RuntimeError:
        logging.getLogger("library").exception("it broke")
    text = capsys.readouterr().err
    assert "RuntimeError" in text
    assert "hunter2" not in text


def test_libraries_are_heard_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("debug", "json")
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("trouble")
    assert [line["event"] for line in lines(capsys)] == ["trouble"]


def test_what_is_bound_to_a_call_is_in_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        structlog.get_logger().info("call")
        logging.getLogger("library").warning("trouble")
    assert [line["request_id"] for line in lines(capsys)] == ["abc", "abc"]

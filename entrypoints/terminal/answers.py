"""Answers, from the question to the line under the last word."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from chatback.client import Answer, ChatBack, ChatBackError
from chatback.v1 import chat_service_pb2, run_pb2
from entrypoints.terminal.ctrl_c import CtrlC, Interrupted
from entrypoints.terminal.failures import TerminalError
from entrypoints.terminal.keyboard import Keyboard
from entrypoints.terminal.screen import Screen
from entrypoints.terminal.typesetting import Display

LOST = "the connection is lost, the answer is not: it goes on when the service is back"
_CUTS = {
    run_pb2.FINISH_REASON_LENGTH: "cut off at the length limit",
    run_pb2.FINISH_REASON_CONTENT_FILTER: "cut off by the provider's content filter",
}


class Answers:
    """Shows runs to their end."""

    def __init__(self, service: ChatBack, screen: Screen, keyboard: Keyboard, ctrl_c: CtrlC) -> None:
        self._service = service
        self._screen = screen
        self._keyboard = keyboard
        self._ctrl_c = ctrl_c

    async def show(self, answer: Answer) -> None:
        """Shows an answer to its end. The first Ctrl-C cancels the run, the second leaves it alone.

        Raises TerminalError if it failed, Interrupted if Ctrl-C cancelled it, ChatBackError if it can't be watched.
        """
        began, run = time.monotonic(), asyncio.get_running_loop().create_future()
        with (
            self._keyboard.silenced(),
            self._screen.answer() as display,
            self._stoppable(run, display) as stops,
        ):
            last, model = await self._play(answer, run, display)
        self._conclude(last, model, time.monotonic() - began)
        if stops and last.WhichOneof("event") == "cancelled":
            raise Interrupted

    async def _play(self, answer: Answer, run: asyncio.Future[str], display: Display) -> tuple[run_pb2.RunEvent, str]:
        """Shows the text and returns the last event, and the model that wrote."""
        event, model, has_text = run_pb2.RunEvent(), "", False
        answer.on_break = lambda _: display.remark(LOST)
        async with answer:
            async for event in answer:
                if not run.done():
                    run.set_result(event.run_id)
                if event.HasField("started"):
                    model = event.started.model
                elif event.HasField("text_delta"):
                    has_text = True
                    display.add(event.text_delta.text)
                elif event.HasField("attempt_reset") and has_text:
                    has_text = False
                    display.void()
        return event, model

    @contextmanager
    def _stoppable(self, run: asyncio.Future[str], display: Display) -> Iterator[list[asyncio.Task[None]]]:
        """Yields the attempts to cancel the run: none, or one from the first Ctrl-C on."""
        stops: list[asyncio.Task[None]] = []

        def stop() -> None:
            display.remark("stopping; Ctrl-C once more leaves the answer alone")
            stops.append(asyncio.create_task(self._cancel(run, display)))

        try:
            with self._ctrl_c.first(stop):
                yield stops
        finally:
            for task in stops:
                task.cancel()

    async def _cancel(self, run: asyncio.Future[str], display: Display) -> None:
        request = chat_service_pb2.CancelRunRequest(run_id=await run)
        try:
            await self._service.runs.CancelRun(request)
        except ChatBackError:
            display.remark("the service can't be told to stop just now; Ctrl-C leaves the answer alone")

    def _conclude(self, last: run_pb2.RunEvent, model: str, seconds: float) -> None:
        """Writes the line under the answer. Raises TerminalError if the run failed."""
        if last.HasField("failed"):
            raise TerminalError(f"the answer failed: {last.failed.message} ({last.failed.reason})")
        if last.HasField("cancelled"):
            self._screen.note(f"{model} · cancelled after {seconds:.1f} s")
            return
        usage, cut = last.completed.usage, _CUTS.get(last.completed.finish_reason)
        tokens = f"{usage.input_tokens} tokens in, {usage.output_tokens} out" if usage.ByteSize() else None
        self._screen.note(" · ".join(filter(None, (model, tokens, f"{seconds:.1f} s", cut))))

"""A model whose words tell which question they answer and in which call, so that mixed text can be seen.

What it is asked says how it is to answer: `str(Question("ada", words=3))` is "ada words=3 gap=0.02 end=stop",
and the second call with it is answered "ada.2.0 ada.2.1 ada.2.2 ".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from uuid import uuid4

from aiohttp import web

from tests.fakes.openai_endpoint import DONE, event, usage

ENDS = ("stop", "silence", "reset", "eof", "error")
"""Whole; never; with a TCP reset; by the rules of HTTP but without a finish reason; with status 500 and no word."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: how many words the answer has, how many seconds lie between two, and how it ends."""

    name: str = field(default_factory=lambda: uuid4().hex[:8])
    words: int = 40
    gap: float = 0.02
    end: str = "stop"

    def __str__(self) -> str:
        return f"{self.name} words={self.words} gap={self.gap} end={self.end}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Takes apart what `str` puts together."""
        name, words, gap, end = text.split()
        return cls(name, int(words.partition("=")[2]), float(gap.partition("=")[2]), end.partition("=")[2])

    def answer(self, call: int) -> str:
        """Returns the whole answer to this call, counted from 1."""
        return "".join(self.word(call, number) for number in range(self.words))

    def word(self, call: int, number: int) -> str:
        """Returns one word, with the space behind it."""
        return f"{self.name}.{call}.{number} "


@dataclass(slots=True)
class Call:
    """One call of the model. `said` counts the words so far, `left_at` is when the caller closed it before its end."""

    question: Question
    number: int
    said: int = 0
    is_whole: bool = False
    left_at: float | None = None
    began: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)


class Model:
    """Serves Chat Completions on a port of 127.0.0.1 while its context is open, and keeps all calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.port = 0
        self._came = asyncio.Condition()
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)

    def calls_for(self, question: Question) -> Sequence[Call]:
        """Returns the calls with this question."""
        return [call for call in self.calls if call.question == question]

    async def called(self, question: Question, number: int = 1) -> Call:
        """Waits for a call with this question to say its first word; gives up after 60 seconds."""
        async with asyncio.timeout(60):
            async with self._came:
                await self._came.wait_for(lambda: len(self.calls_for(question)) >= number)
            call = self.calls_for(question)[number - 1]
            await call.began.wait()
        return call

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["messages"][-1]["content"]
        question = Question.parse(asked)
        call = Call(question, len(self.calls_for(question)) + 1)
        self.calls.append(call)
        async with self._came:
            self._came.notify_all()
        if question.end == "error":
            return web.json_response({"error": {"message": "no"}}, status=500)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            await self._say(call, response)
            await self._end(call, request, response)
        except (asyncio.CancelledError, ConnectionError):
            if not call.is_whole:
                call.left_at = time.monotonic()
                call.left.set()
            raise
        return response

    async def _say(self, call: Call, response: web.StreamResponse) -> None:
        for number in range(call.question.words):
            await response.write(event(call.question.word(call.number, number)))
            call.said += 1
            call.began.set()
            await asyncio.sleep(call.question.gap)

    async def _end(self, call: Call, request: web.Request, response: web.StreamResponse) -> None:
        match call.question.end:
            case "silence":
                await asyncio.Event().wait()
            case "reset":
                assert request.transport is not None
                request.transport.abort()
            case "stop":
                call.is_whole = True
                await response.write(event(finish="stop") + usage(3, call.question.words) + DONE)
        call.is_whole = True

"""A model that says what a test wrote down."""

import asyncio
from collections.abc import AsyncGenerator

from application.ports.chat_model import ChatModel, ChatRequest, Finish
from domain.conversation import Usage
from domain.errors import ModelError, ModelStreamBroken
from domain.run import FinishReason

FINISH = Finish(FinishReason.STOP, Usage(3, 2))

Step = str | asyncio.Event | ModelError | Finish


class ScriptedChatModel(ChatModel):
    """Plays the scripts in turn, the last one again and again.

    A text is a piece; an event is waited for before going on; an error is raised; a `Finish` ends the answer. A
    script that ends otherwise is a stream that breaks. `requests` are all prompts so far; `open_streams` counts
    the generators that are neither at their end nor closed, and `closed_early` is set when one was closed midway.
    """

    def __init__(self, *steps: Step) -> None:
        self.requests: list[ChatRequest] = []
        self.open_streams = 0
        self.closed_early = asyncio.Event()
        self._scripts: list[tuple[Step, ...]] = [steps or ("Hello", " world", FINISH)]

    def script(self, *scripts: tuple[Step, ...]) -> None:
        """Sets what the following requests are answered with."""
        self._scripts = list(scripts)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str | Finish, None]:
        """Yields the next script."""
        self.requests.append(request)
        self.open_streams += 1
        whole = False
        try:
            for step in self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]:
                if isinstance(step, ModelError):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    whole = isinstance(step, Finish)
                    yield step
        except (GeneratorExit, asyncio.CancelledError):
            if not whole:
                self.closed_early.set()
            raise
        finally:
            self.open_streams -= 1
        if not whole:
            raise ModelStreamBroken

    async def close(self) -> None:
        """Does nothing: there is nothing to close."""

"""One streamed response, read with bounded patience."""

import asyncio

import aiohttp

from adapters.openai.errors import EndpointError, model_error
from adapters.openai.sse import StreamDecoder
from application.ports.chat_model import Finish
from domain.conversation import Usage
from domain.errors import ModelError, ModelStalled, ModelStreamBroken, ModelUnavailable
from domain.run import FinishReason

_LINGER_SECONDS = 1.0
_FINISH_REASONS = {
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}
_GIVEN_UP = frozenset({"error", "abort"})
"""Reasons by which an endpoint says that it gave up, not that the answer is whole."""


class Answer:
    """Reads one response. The model has until `deadline`, in the loop's time, for its first text, then `gap` seconds
    for each event; `first_token` is what ModelStalled names for the former.

    One timer a stream watches the time, and is moved only when it rings: nothing is armed or cancelled for a chunk.
    It does not ring while nobody waits, as a slow reader is no stalled model.
    """

    def __init__(
        self, response: aiohttp.ClientResponse, model: str, *, deadline: float, first_token: float, gap: float
    ) -> None:
        self._response = response
        self._model = model
        self._decoder = StreamDecoder()
        self._spoken = self._waiting = self._stalled = False
        self._expiry = deadline
        self._first_token = first_token
        self._gap = gap
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(gap, self._look)

    async def next(self) -> str | Finish:
        """Returns the text of the next read that has any or, last, the model's word that the answer is whole.

        Raises ModelError; closing is the caller's part.
        """
        if self._spoken:
            self._expiry = self._loop.time() + self._gap
        while not self._decoder.ended:
            if text := await self._read_text():
                self._spoken = True
                return text
        return self._finish()

    def close(self) -> None:
        """Closes the connection at once, so that the model stops; one whose response has ended stays for others."""
        self._timer.cancel()
        self._response.close()

    def leave(self) -> None:
        """Lets the end of a whole answer's response arrive, for a second: then the connection can be used again."""
        self._timer.cancel()
        if not self._response.content.is_eof():
            self._timer = self._loop.call_later(_LINGER_SECONDS, self.close)

    async def _read_text(self) -> str:
        events = self._decoder.events
        self._waiting = True
        try:
            data = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as failure:
            if self._decoder.finish_reason is None:
                raise self._failure() from failure
            data = b""
        finally:
            self._waiting = False
        text = self._decoder.feed(data) if data else self._decoder.close()
        if not text and self._decoder.events > events:
            self._expiry = max(self._expiry, self._loop.time() + self._gap)
        return text

    def _failure(self) -> ModelError:
        if self._stalled:
            return ModelStalled(self._gap if self._spoken else self._first_token)
        return ModelStreamBroken() if self._spoken else ModelUnavailable()

    def _finish(self) -> Finish:
        reason, usage = self._decoder.finish_reason, self._decoder.usage
        if reason is not None and reason not in _GIVEN_UP:
            return Finish(
                _FINISH_REASONS.get(reason, FinishReason.STOP), Usage(usage.prompt_tokens, usage.completion_tokens)
            )
        if self._decoder.error is None:
            raise ModelStreamBroken
        refusal = EndpointError(200, self._decoder.error)
        error = model_error(refusal, self._model)
        raise ModelStreamBroken if self._spoken and isinstance(error, ModelUnavailable) else error from refusal

    def _look(self) -> None:
        now = self._loop.time()
        if self._waiting and now >= self._expiry:
            self._stalled = True
            self._response.close()
            return
        self._timer = self._loop.call_at(
            min(self._expiry, now + self._gap) if self._waiting else now + self._gap, self._look
        )

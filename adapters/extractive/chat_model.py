"""The model that answers where no language model is configured: it needs no network, no key and no weights."""

from collections.abc import AsyncGenerator

from application.ports.chat_model import ChatModel, ChatRequest, Finish
from domain.conversation import Usage
from domain.run import FinishReason

_PIECES = (
    "No language model is configured, ",
    "so there is nothing to answer from and nothing to quote. ",
    "Set CHATBACK_OPENAI_API_KEY, ",
    "or CHATBACK_OPENAI_BASE_URL for any compatible server.",
)


class ExtractiveChatModel(ChatModel):
    """Says what to configure, whatever it is asked, in a few pieces."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str | Finish, None]:
        """Yields two sentences and the `Finish`; the cost is nothing."""
        for piece in _PIECES:
            yield piece
        yield Finish(FinishReason.STOP, Usage())

    async def close(self) -> None:
        """Does nothing: there is nothing to close."""

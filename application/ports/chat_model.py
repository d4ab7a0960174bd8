"""The language model behind an answer."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.conversation import Usage
from domain.prompt import Turn
from domain.run import FinishReason


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A prompt, oldest turn first. None leaves a choice to the endpoint."""

    model: str
    turns: Sequence[Turn]
    temperature: float | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The model's own word that the answer is whole, and what it cost."""

    reason: FinishReason
    usage: Usage


class ChatModel(Protocol):
    """Streams an answer."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[str | Finish, None]:
        """Yields non-empty pieces of text as they arrive and, last and only if the model said so, one `Finish`.

        Closing the generator closes the connection, so the model stops. Text may hold NUL or lone surrogates: the
        caller repairs it. Raises a domain.errors.ModelError, also in the middle: a stream that ends without
        the model's word raises ModelStreamBroken. Retries only before the first piece.
        """
        ...

    async def close(self) -> None:
        """Closes all connections, at the end of the process."""
        ...

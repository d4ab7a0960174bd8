"""What the model is shown: the newest turns that fit its window."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from domain.conversation import Message, MessageRole
from domain.errors import PromptTooLong

ANSWER_SHARE = 4
"""One part in so many of the window is left for the answer."""
TURN_TOKENS = 4
"""What a turn costs beside its text: role and separators."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message as the model sees it."""

    role: MessageRole
    text: str


def estimated_tokens(text: str) -> int:
    """Returns an upper estimate: a token for each three bytes of UTF-8.

    Byte-pair vocabularies average 4 bytes a token for English and 3 for CJK text, so the estimate errs to the safe
    side for every model; an exact count would hold for one vocabulary only.
    """
    return len(text.encode()) // 3 + TURN_TOKENS


def prompt_budget(context_tokens: int) -> int:
    """Returns how many tokens of the window the prompt may use."""
    return context_tokens - context_tokens // ANSWER_SHARE


def check_fits(content: str, budget: int, *, field: str = "content") -> None:
    """Refuses a newest turn that would not fit alone, and names the field that is to blame."""
    if estimated_tokens(content) > budget:
        raise PromptTooLong(budget, field)


def build_prompt(newest_first: Iterable[Message], budget: int) -> Sequence[Turn]:
    """Returns the newest turns within the budget, oldest first. The newest is always among them.

    Messages without text (an answer that failed at once) are left out: they say nothing.
    """
    turns: list[Turn] = []
    for message in newest_first:
        if not message.content:
            continue
        budget -= estimated_tokens(message.content)
        if turns and budget < 0:
            break
        turns.append(Turn(message.role, message.content))
    return turns[::-1]

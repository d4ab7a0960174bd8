"""What the chat shows, on a terminal and in a pipe."""

import sys
from collections.abc import Iterable
from datetime import UTC

from rich.console import Console
from rich.text import Text

from chatback.v1 import conversation_pb2
from entrypoints.terminal.printable import one_line, printable
from entrypoints.terminal.prose import Prose
from entrypoints.terminal.typesetting import Display, Typesetter, Typewriter

SHORT_ID = 13
"""How many characters tell one id from another: those that hold its time, to the millisecond."""
_FATES = {
    conversation_pb2.MESSAGE_STATUS_INCOMPLETE: "incomplete",
    conversation_pb2.MESSAGE_STATUS_FAILED: "no answer came of it",
    conversation_pb2.MESSAGE_STATUS_CANCELLED: "cancelled",
}


class Screen:
    """Standard output; what is only about the answers goes to standard error where the output is no terminal."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):  # an answer may have letters that this locale lacks
            sys.stdout.reconfigure(errors="replace")
        self._out = Console(markup=False, emoji=False, highlight=False)
        self._sets = self._out.is_terminal and not self._out.is_dumb_terminal
        self._about = (
            self._out if self._out.is_terminal else Console(stderr=True, markup=False, emoji=False, highlight=False)
        )

    def answer(self) -> Display:
        """Returns where an answer is to be shown."""
        return Typesetter(self._out) if self._sets else Typewriter(self._out, self._about)

    def note(self, text: str) -> None:
        """Shows a remark about what goes on."""
        self._about.print(Text(one_line(text), style="dim"), soft_wrap=True)

    def error(self, text: str) -> None:
        """Shows what went wrong."""
        self._about.print(Text(one_line(text), style="red"), soft_wrap=True)

    def say(self, text: str) -> None:
        """Shows lines that were asked for."""
        self._out.print(Text(printable(text)), soft_wrap=True)

    def gap(self) -> None:
        """Sets the next question apart from what is above."""
        self._about.print()

    def conversations(self, listed: Iterable[conversation_pb2.Conversation]) -> None:
        """Shows conversations, numbered from 1."""
        for number, conversation in enumerate(listed, 1):
            changed = conversation.update_time.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M")
            title = one_line(conversation.title) or "(no title)"
            self.say(f"{number:>3}  {changed}  {conversation.conversation_id[:SHORT_ID]}  {title}")

    def messages(self, messages: Iterable[conversation_pb2.Message]) -> None:
        """Shows messages that were said before, questions with the prompt before them."""
        for message in messages:
            self.gap()
            self._message(message)
            if message.status in _FATES:
                self.note(f"({_FATES[message.status]})")

    def _message(self, message: conversation_pb2.Message) -> None:
        text = printable(message.content)
        if message.role == conversation_pb2.MESSAGE_ROLE_USER:
            self._out.print(Text(f"> {text}", style="bold"), soft_wrap=True)
        elif text:
            self._out.print(Prose(text) if self._sets else Text(text), soft_wrap=not self._sets)

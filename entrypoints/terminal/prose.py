"""Somebody else's Markdown on a terminal."""

from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Heading, Markdown, MarkdownElement

# Without HTML: what looks like a tag is text of the answer, and rich would leave it out.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")


class _Heading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class Prose(Markdown):
    """Markdown of which nothing is left out, lines stay apart, and a link shows where it leads."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "heading_open": _Heading}

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = _PARSER.parse(text)
        for token in self.parsed:
            _keep_lines(token)

    @property
    def begins_with_a_gap(self) -> bool:
        """Says whether rich puts an empty line before it: it does before a list."""
        return bool(self.parsed) and self.parsed[0].type in {"bullet_list_open", "ordered_list_open"}


def finished_length(text: str) -> int:
    """Returns how many characters at the beginning are blocks that can't change any more: all but the last."""
    lines = text.split("\n")[:-1]
    begins = [token.map[0] for token in _PARSER.parse("\n".join(lines)) if token.level == 0 and token.map]
    return sum(len(line) + 1 for line in lines[: begins[-1]]) if len(begins) > 1 else 0


def _keep_lines(token: Token) -> None:
    for child in token.children or ():
        if child.type == "softbreak":
            child.type = "hardbreak"

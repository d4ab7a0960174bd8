"""What the chat makes of an answer's text."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from entrypoints.terminal.printable import one_line, printable
from entrypoints.terminal.prose import Prose, finished_length
from entrypoints.terminal.typesetting import Typesetter, Typewriter


def shown(text: str) -> str:
    console = Console(file=StringIO(), width=60)
    with console.capture() as capture:
        console.print(Prose(text))
    return capture.get()


def test_control_characters_are_taken_out_and_lines_and_tabs_stay() -> None:
    assert printable("a\x1b[31m\x00\x7f\x9b2Jb\tc\nd\r\n") == "a[31m2Jb\tc\nd\n"


def test_one_line_is_one_line() -> None:
    assert one_line(" a\nb\t\x1bc ") == "a b c"


def test_what_looks_like_html_or_markup_is_text() -> None:
    assert shown("vector<int>, [red]x[/red] :smile:").strip() == "vector<int>, [red]x[/red] :smile:"
    assert shown("<think>\nhm\n</think>").split() == ["<think>", "hm", "</think>"]


def test_lines_stay_apart() -> None:
    assert [line.strip() for line in shown("roses\nviolets").splitlines()] == ["roses", "violets"]


def test_a_link_shows_where_it_leads() -> None:
    assert "https://evil.example" in shown("[your bank](https://evil.example)")


@pytest.mark.parametrize(("text", "finished"), [
    ("one line", ""),
    ("one\n\ntwo", ""),
    ("one\n\ntwo\n", "one\n\n"),
    ("- a\n- b\n\n-", ""),
    ("- a\n\nafter\n", "- a\n\n"),
    ("```\n\n# no heading\n\ntext\n", ""),
    ("```\nx\n```\nafter\n", "```\nx\n```\n"),
])  # fmt: skip
def test_all_blocks_are_finished_but_the_last(text: str, finished: str) -> None:
    assert text[: finished_length(text)] == finished


def test_a_pipe_gets_the_text_as_it_is_and_a_newline_at_the_end() -> None:
    out = StringIO()
    with Typewriter(Console(file=out), Console(file=StringIO())) as display:
        display.add("**a**\n\n")
        display.add("[b]c")
    assert out.getvalue() == "**a**\n\n[b]c\n"


def test_in_a_pipe_an_answer_that_begins_anew_says_so() -> None:
    out = StringIO()
    with Typewriter(Console(file=out), Console(file=StringIO())) as display:
        display.add("Hel")
        display.void()
        display.add("Hello")
    assert out.getvalue() == "Hel\n[the answer begins anew]\nHello\n"


async def test_on_a_terminal_every_word_is_left_once() -> None:
    console = Console(file=StringIO(), width=60, height=10, force_terminal=True)
    with Typesetter(console) as display:
        for piece in ("# He", "ad\n\nfirst par", "agraph\n\n1. one\n2.", " two\n\nlast"):
            display.add(piece)
            draw_now(display)
    assert left_on_the_screen(console).split() == ["Head", "first", "paragraph", "1", "one", "2", "two", "last"]


async def test_on_a_terminal_a_voided_block_is_taken_back() -> None:
    console = Console(file=StringIO(), width=60, height=10, force_terminal=True)
    with Typesetter(console) as display:
        display.add("wrong")
        draw_now(display)
        display.void()
        display.add("right")
    assert left_on_the_screen(console).split() == ["the", "answer", "begins", "anew", "right"]


def draw_now(display: Typesetter) -> None:
    assert display._timer is not None
    display._timer.cancel()
    display._draw()


def left_on_the_screen(console: Console) -> str:
    """Obeys what moves the cursor up and what erases a line, and passes over colours."""
    assert isinstance(console.file, StringIO)
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\n|\r|[^\x1b\n\r]+", console.file.getvalue()):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif up := re.fullmatch(r"\x1b\[(\d+)A", part):
            row -= int(up[1])
        elif part[0] not in "\x1b\r":
            lines[row] += part
    return "\n".join(lines)

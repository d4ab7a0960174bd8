"""Lines from standard input, read beside the event loop."""

import asyncio
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress

PROMPT = "> "
END_OF_EDITING = "\x1b[?2004l\n"
"""What the line editor writes after a line, so here after one that was given up: pasting is as usual again."""


class Keyboard:
    """Standard input: a terminal with line editing, or whatever is piped in, line by line."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdin.isatty()
        self._edits = self.is_terminal and sys.stdout.isatty()
        self._read = _edited_line if self._edits else _plain_line(self.is_terminal)

    async def line(self) -> str:
        """Returns the next line without its end. Raises EOFError at the end of the input.

        Once a call was cancelled there should be no other: its line would go to the one that was given up.
        """
        line: Future[str] = Future()
        # A daemon, because nothing but a line ends a read and the program must not wait for one in order to leave.
        threading.Thread(target=_fulfil, args=(line, self._read), daemon=True).start()
        try:
            return await asyncio.wrap_future(line)
        except asyncio.CancelledError:
            if self._edits:
                sys.stdout.write(END_OF_EDITING)
            raise

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Keeps what is typed meanwhile for the next line and off the screen."""
        with self.restored():
            if self.is_terminal:
                mode = termios.tcgetattr(0)
                mode[3] &= ~termios.ECHO
                termios.tcsetattr(0, termios.TCSADRAIN, mode)
            yield

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Leaves the terminal's mode as it was found, also where a line was given up in the middle."""
        mode = termios.tcgetattr(0) if self.is_terminal else None
        try:
            yield
        finally:
            if mode is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, mode)


def _fulfil(line: Future[str], read: Callable[[], str]) -> None:
    with suppress(InvalidStateError):  # given up meanwhile
        try:
            line.set_result(read())
        except (EOFError, OSError) as error:
            line.set_exception(error)


def _edited_line() -> str:
    import readline  # noqa: F401  # gives input() editing and history; it writes to the terminal when imported

    return input(PROMPT)


def _plain_line(prompts: bool) -> Callable[[], str]:
    # Not sys.stdin: its lock, held by a reader that never returns, is fatal to an interpreter that wants to end.
    lines = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115

    def read() -> str:
        if prompts:
            sys.stderr.write(PROMPT)
            sys.stderr.flush()
        if not (line := lines.readline()):
            raise EOFError
        return line.rstrip("\r\n")

    return read

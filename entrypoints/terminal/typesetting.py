"""An answer that is shown while it arrives."""

import asyncio
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from entrypoints.terminal.printable import printable
from entrypoints.terminal.prose import Prose, finished_length

_DRAW_SECONDS = 0.05


class Display(Protocol):
    """Shows one answer; a context manager, at whose end all of it is on the screen for good."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def add(self, text: str) -> None:
        """Shows more of the answer."""

    def void(self) -> None:
        """Begins the answer anew; what can't be taken back is marked."""

    def remark(self, text: str) -> None:
        """Says something about the answer, which is no part of it."""


class Typewriter:
    """Writes the answer as it is, at once: for pipes, files and simple terminals."""

    def __init__(self, console: Console, remarks: Console) -> None:
        self._console = console
        self._remarks = remarks
        self._last = "\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last != "\n":
            self._write("\n")

    def add(self, text: str) -> None:
        """Writes the text."""
        self._write(printable(text))

    def void(self) -> None:
        """Writes that the answer begins anew."""
        self._write(f"{'' if self._last == chr(10) else chr(10)}[the answer begins anew]\n")

    def remark(self, text: str) -> None:
        """Writes the remark where remarks go."""
        self._remarks.print(Text(text, style="dim"), soft_wrap=True)

    def _write(self, text: str) -> None:
        try:  # past rich, which makes spaces of tabs
            self._console.file.write(text)
            self._console.file.flush()
        except BrokenPipeError:
            self._console.on_broken_pipe()
        self._last = text[-1:] or self._last


class Typesetter:
    """Sets the answer as Markdown: finished blocks are printed for good, only the block that grows is redrawn."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._text = ""
        self._remark = ""
        self._has_printed = False
        self._timer: asyncio.TimerHandle | None = None
        self._pause = _DRAW_SECONDS
        self._live = Live(
            Text("…", style="dim"),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._live.stop()
        if self._text.strip():
            self._console.print(self._set(self._text))

    def add(self, text: str) -> None:
        """Takes more of the answer; it is drawn a moment later, with what comes until then."""
        self._text += printable(text)
        self._remark = ""
        self._draw_soon()

    def void(self) -> None:
        """Takes the growing block back and marks what is printed already."""
        self._text = ""
        self._console.print(Text("the answer begins anew", style="dim italic"))
        self._draw_soon()

    def remark(self, text: str) -> None:
        """Shows the remark under the answer until that goes on."""
        self._remark = text
        self._draw_soon()

    def _draw_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._draw)

    def _draw(self) -> None:
        self._timer, began = None, time.monotonic()
        length = finished_length(self._text)
        finished, self._text = self._set(self._text[:length]) if length else None, self._text[length:]
        self._has_printed |= finished is not None
        self._live.update(_Bottom(Group(self._set(self._text), Text(self._remark, style="dim"))))
        if finished is None:
            self._live.refresh()
        else:  # printing redraws what is live, so that both change at once
            self._console.print(finished)
        self._pause = max(_DRAW_SECONDS, 4 * (time.monotonic() - began))

    def _set(self, text: str) -> RenderableType:
        prose = Prose(text)
        return Group("", prose) if self._has_printed and not prose.begins_with_a_gap else prose


class _Bottom:
    """As much of something as the screen has room for, its end rather than its beginning."""

    def __init__(self, whole: RenderableType) -> None:
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        for number, line in enumerate(lines[-max(console.height - 2, 1) :]):
            if number:
                yield Segment.line()
            yield from line

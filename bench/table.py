"""The table that people read, and whether what was asked for has been reached."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.figures import BARE, OTHER, REST, US, Board, Figure
from bench.peers import FASTAPI, LITELLM, NAMES


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on our value, or on its ratio to somebody's; ours is what `subject` is."""

    figure: Figure
    at_least: float | None = None
    at_most: float | None = None
    against: str | None = None
    subject: str = US

    def name(self) -> str:
        """Says what is bounded."""
        return self.figure if self.subject == US else f"{self.figure}: {self.subject}"

    def bound(self) -> str:
        """Says the bound in words."""
        number = f"at least {self.at_least:,g}" if self.at_least is not None else f"at most {self.at_most:,g}"
        return f"{number} x {self.against}" if self.against else number

    def reached(self, board: Board) -> tuple[float, bool] | None:
        """Returns our value or ratio and whether it is good enough, None where one of both is not known."""
        ours, theirs = (
            board.get(self.subject, self.figure),
            board.get(self.against, self.figure) if self.against else 1.0,
        )
        if ours is None or not theirs:
            return None
        value = ours / theirs
        return value, value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0)


TARGETS = (
    Target(Figure.TOKENS_32, at_least=5, against=FASTAPI),
    Target(Figure.TOKENS_32, at_least=16, against=LITELLM),
    Target(Figure.PACED_CPU, at_most=0.45, against=FASTAPI),
    Target(Figure.FIRST_1_P50, at_most=4, against=FASTAPI),
    Target(Figure.FIRST_32_P99, at_most=1, against=FASTAPI),
    Target(Figure.CALLS, at_least=0.25, against=BARE),
    Target(Figure.TOKENS_32, at_least=2, against=FASTAPI, subject=REST),
    Target(Figure.CALLS, at_least=0.4, against=US, subject=REST),
    Target(Figure.RSS_IDLE, at_most=150),
    Target(Figure.RSS_STREAM, at_most=80),
    Target(Figure.AGE_P50, at_most=5),
    Target(Figure.AGE_P99, at_most=25),
    Target(Figure.WIDE_AGE_P99, at_most=200),
    Target(Figure.WIDE_CONNECTIONS, at_most=11),
    Target(Figure.WATCH_AGE_P50, at_most=2, against=US, subject=OTHER),
    Target(Figure.WATCH_AGE_P99, at_most=2, against=US, subject=OTHER),
    Target(Figure.WATCH_CPU, at_most=2, against=US, subject=OTHER),
    Target(Figure.LOG_32, at_least=50_000),
    Target(Figure.LOG_200, at_least=50_000),
    Target(Figure.LOG_STORED, at_most=250),
    Target(Figure.LOG_WAL, at_most=500),
    Target(Figure.LOG_PACKED, at_most=1.2),
)


def print_tables(board: Board, *, peers_measured: bool, all_targets: bool) -> None:
    """Prints what was measured, side by side, then what was to be reached: all of it, or only what was measured."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 144
    console.print(_measured(board, peers_measured=peers_measured))
    console.print(_targets(board, [target for target in TARGETS if all_targets or board.has(target.figure)]))


def _measured(board: Board, *, peers_measured: bool) -> Table:
    subjects = list(filter(board.knows, (US, OTHER, REST, BARE, *NAMES.values())))
    table = Table(
        title="Server on core 0, model and load on core 1; everything authenticated and stored",
        caption=None if peers_measured else "peers: not measured",
    )
    table.add_column("median of the rounds")
    for subject in subjects:
        table.add_column(subject, justify="right")
    for figure in filter(board.has, Figure):
        table.add_row(figure, *(_text(board.get(subject, figure)) for subject in subjects))
    return table


def _targets(board: Board, targets: Sequence[Target]) -> Table:
    table = Table("to reach", "bound", "reached", "", title="What ChatBack is to reach")
    for target in targets:
        if reached := target.reached(board):
            value, good = reached
            table.add_row(target.name(), target.bound(), _text(value), "[green]pass[/]" if good else "[red]miss[/]")
        else:
            table.add_row(target.name(), target.bound(), "-", "not measured")
    return table


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"

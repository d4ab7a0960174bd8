"""The measurements, each with fresh processes, so that none suffers from what another left."""

from dataclasses import dataclass
from typing import TypeVar

import msgspec
import psutil

from bench.database import footprint
from bench.figures import BARE, REST, US, Board, Figure
from bench.processes import LOAD_CORE, BenchError, output_of
from bench.seen import AnswersSeen, CallsSeen
from bench.service import Server, Site, echo, model, service

TOKENS = 500
PACED_STREAMS, PACED_DELAY = 200, 0.05
OPEN_STREAMS, OPEN_DELAY = 1000, 0.5
AT_ONCE = 2  # the load's answers to warm up
IN_FLIGHT, CALL_TURNS = 32, 2
Seen = TypeVar("Seen", AnswersSeen, CallsSeen)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: rounds, tokens of a paced and of a watched answer, seconds of calls."""

    rounds: int = 3
    paced_tokens: int = 200
    open_tokens: int = 50
    call_seconds: float = 4


QUICK = Plan(rounds=1, paced_tokens=100, open_tokens=40, call_seconds=2)


def throughput(place: Site, board: Board, _: Plan) -> None:
    """Asks for answers that the model writes as fast as it can: on 1 stream, then on 32."""
    with model(place, TOKENS) as port, service(place, port) as server:
        board.add(US, _flow(place, server))
    with echo(place, TOKENS) as server:
        board.add(BARE, _flow(place, server))


def _flow(place: Site, server: Server, *way: str) -> dict[Figure, float]:
    one = load(place, server, AnswersSeen, "answers", 1, "--tokens", TOKENS, "--repeat", 6, *way)
    many = load(place, server, AnswersSeen, "answers", 32, "--tokens", TOKENS, "--repeat", 2, *way)
    return {
        Figure.TOKENS_1: one.tokens / one.seconds,
        Figure.FIRST_1_P50: one.first_token_p50 * 1e3,
        Figure.FIRST_1_P99: one.first_token_p99 * 1e3,
        Figure.TOKENS_32: many.tokens / many.seconds,
        Figure.FIRST_32_P50: many.first_token_p50 * 1e3,
        Figure.FIRST_32_P99: many.first_token_p99 * 1e3,
        Figure.LOAD_CORE_32: many.load_core_busy * 100,
        Figure.RSS_LOADED: psutil.Process(server.pid).memory_info().rss / 1e6,
    }


def pace(place: Site, board: Board, plan: Plan) -> None:
    """Watches 200 answers at 20 tokens/s each, and what they leave in the database."""
    with model(place, plan.paced_tokens, PACED_DELAY, AT_ONCE) as port, service(place, port) as server:
        before = footprint(place.database_url)
        seen = load(place, server, AnswersSeen, "answers", PACED_STREAMS, "--tokens", plan.paced_tokens)
        grown = footprint(place.database_url) - before
    board.add(
        US,
        {
            Figure.PACED_TOKENS: seen.tokens / seen.seconds,
            Figure.PACED_CPU: seen.cpu_seconds / seen.tokens * 1e6,
            Figure.PACED_FIRST_P50: seen.first_token_p50 * 1e3,
            Figure.PACED_FIRST_P99: seen.first_token_p99 * 1e3,
            Figure.PACED_LOAD_CORE: seen.load_core_busy * 100,
            Figure.EVENT_TOKENS: seen.tokens / grown.events,
            Figure.EVENT_STORED: grown.stored / grown.events,
            Figure.EVENT_WAL: grown.wal / grown.events,
        },
    )


def unary(place: Site, board: Board, plan: Plan) -> None:
    """Reads one conversation again and again, in turns from the service and from a server that has it in memory."""
    with model(place, TOKENS) as port, service(place, port) as ours, echo(place, TOKENS) as bare:
        for _ in range(CALL_TURNS):
            board.add(US, _calls(place, ours, plan))
            board.add(BARE, _calls(place, bare, plan))


def _calls(place: Site, server: Server, plan: Plan, *way: str) -> dict[Figure, float]:
    seen = load(place, server, CallsSeen, "calls", IN_FLIGHT, "--seconds", plan.call_seconds, *way)
    return {
        Figure.CALLS: seen.calls / seen.seconds,
        Figure.CALL_CPU: seen.cpu_seconds / seen.calls * 1e6,
        Figure.LOAD_CORE_CALLS: seen.load_core_busy * 100,
    }


def rest(place: Site, board: Board, plan: Plan) -> None:
    """Asks over REST what is asked over gRPC elsewhere, and reads one conversation both ways in turns."""
    with model(place, TOKENS) as port, service(place, port) as server:
        way = ("--rest", server.rest_address)
        board.add(REST, _flow(place, server, *way))
        for _ in range(CALL_TURNS):
            board.add(REST, _calls(place, server, plan, *way))
            board.add(US, _calls(place, server, plan))


def memory(place: Site, board: Board, plan: Plan) -> None:
    """Opens 1,000 streams, 32 at a time, to answers that come slowly, and looks at the process while all are open."""
    with model(place, plan.open_tokens, OPEN_DELAY, AT_ONCE) as port, service(place, port) as server:
        seen = load(place, server, AnswersSeen, "answers", OPEN_STREAMS, "--tokens", plan.open_tokens, "--opening", 32)
    if not seen.open_bytes:
        raise BenchError("the streams were never all open at once: this machine is too slow for this measurement")
    board.add(
        US,
        {
            Figure.RSS_IDLE: seen.idle_bytes / 1e6,
            Figure.RSS_STREAM: (seen.open_bytes - seen.idle_bytes) / OPEN_STREAMS / 1e3,
        },
    )


def load(place: Site, server: Server, seen: type[Seen], *words: object) -> Seen:
    """Puts a load on the server and returns what it saw."""
    said = output_of(
        "bench.load",
        server.address,
        str(server.pid),
        *map(str, words),
        core=LOAD_CORE,
        log=place.folder / "load.log",
        seconds=300,
    )
    return msgspec.json.decode(said, type=seen)

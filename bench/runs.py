"""Measurements of runs: how old words are when they come, on the replica that makes the answer and on another one."""

from collections.abc import Sequence

import msgspec

from bench.database import connections
from bench.figures import OTHER, US, Board, Figure
from bench.processes import LOAD_CORE, BenchError, output_of
from bench.sections import AT_ONCE, OPEN_STREAMS, PACED_DELAY, PACED_STREAMS, Plan
from bench.seen import Ages, DeliveriesSeen
from bench.service import Server, Site, model, service

WIDE_DELAY, WIDE_SECONDS = 0.2, 25
WATCHED_STREAMS = 50


def latency(place: Site, board: Board, plan: Plan) -> None:
    """Looks at how old each token of 200 answers is when it comes, 20 tokens/s each."""
    tokens = plan.paced_tokens
    with model(place, tokens, PACED_DELAY, AT_ONCE, stamped=True) as port, service(place, port) as server:
        ages = known(load(place, server, PACED_STREAMS, tokens).here)
    board.add(US, {Figure.AGE_P50: ages.p50 * 1e3, Figure.AGE_P99: ages.p99 * 1e3})


def wide(place: Site, board: Board, _: Plan) -> None:
    """Does so with 1,000 answers at 5 tokens/s each, and looks at how many connections to the database they take."""
    tokens = int(WIDE_SECONDS / WIDE_DELAY)
    with model(place, tokens, WIDE_DELAY, AT_ONCE, stamped=True) as port, service(place, port) as server:
        seen = load(place, server, OPEN_STREAMS, tokens)
        held = connections(place.database_url)
    ages = known(seen.here)
    board.add(
        US,
        {
            Figure.WIDE_AGE_P50: ages.p50 * 1e3,
            Figure.WIDE_AGE_P99: ages.p99 * 1e3,
            Figure.WIDE_CPU: seen.cpu_seconds / seen.tokens * 1e6,
            Figure.WIDE_CONNECTIONS: held,
        },
    )


def remote(place: Site, board: Board, plan: Plan) -> None:
    """Watches 50 answers at 20 tokens/s on the replica that makes them, on another one, and on both at once.

    The CPU is that of both replicas together, begin and end of the answers included, so that what the maker of an
    answer spends on telling the other one counts.
    """
    tokens = plan.paced_tokens
    with (
        model(place, tokens, PACED_DELAY, AT_ONCE, stamped=True) as port,
        service(place, port) as here,
        service(place, port) as there,
    ):
        for watch, subject in (("here", US), ("there", OTHER)):
            seen = load(place, here, WATCHED_STREAMS, tokens, *at(there, watch))
            board.add(subject, {Figure.WATCH_CPU: seen.cpu_seconds / seen.tokens * 1e6})
        seen = load(place, here, WATCHED_STREAMS, tokens, *at(there, "both"))
    for subject, ages in ((US, known(seen.here)), (OTHER, known(seen.there))):
        board.add(subject, {Figure.WATCH_AGE_P50: ages.p50 * 1e3, Figure.WATCH_AGE_P99: ages.p99 * 1e3})


def load(place: Site, here: Server, streams: int, tokens: int, *words: str) -> DeliveriesSeen:
    """Has answers made at a replica and watched, and returns what was seen."""
    said = output_of(
        "bench.delivery_load",
        *(here.address, str(here.pid), str(streams), str(tokens), *words),
        core=LOAD_CORE,
        log=place.folder / "load.log",
        seconds=300,
    )
    return msgspec.json.decode(said, type=DeliveriesSeen)


def at(there: Server, watch: str) -> Sequence[str]:
    """Returns the words that name another replica and say where answers are watched."""
    return "--there", there.address, "--there-pid", str(there.pid), "--watch", watch


def known(ages: Ages | None) -> Ages:
    """Returns the ages. Raises BenchError where there are none."""
    if ages is None:
        raise BenchError("the streams never had text all at once: this machine is too slow for this measurement")
    return ages

"""Measurements of what holds the runs, without a service around it: the log in PostgreSQL, and the bus over Redis."""

import msgspec

from bench.figures import US, Board, Figure
from bench.processes import SERVER_CORE, output_of
from bench.sections import Plan
from bench.seen import BusSeen, LogSeen
from bench.service import Site


def log(place: Site, board: Board, plan: Plan) -> None:
    """Writes events into the log as fast as it takes them, and packs answers that ended long ago."""
    said = program(place, "bench.log_load", place.database_url, plan.call_seconds)
    seen = msgspec.json.decode(said, type=LogSeen)
    board.add(
        US,
        {
            Figure.COMMITS: seen.commits,
            Figure.LOG_32: seen.events_32,
            Figure.LOG_200: seen.events_200,
            Figure.LOG_BY_FOUR: seen.events_by_four,
            Figure.LOG_STORED: seen.stored,
            Figure.LOG_WAL: seen.wal,
            Figure.LOG_PACKED: seen.packed,
            Figure.PACK_MS: seen.pack_seconds * 1e3,
        },
    )


def bus(place: Site, board: Board, plan: Plan) -> None:
    """Publishes news as fast as Valkey takes them."""
    seen = msgspec.json.decode(program(place, "bench.bus_load", place.redis_url, plan.call_seconds), type=BusSeen)
    board.add(
        US,
        {
            Figure.BUS_MESSAGES: seen.messages,
            Figure.BUS_BYTES: seen.message_bytes,
            Figure.BUS_CPU: seen.cpu_seconds * 1e6,
        },
    )


def program(place: Site, module: str, url: str, seconds: float) -> bytes:
    """Runs a program on the service's core to its end and returns what it printed."""
    return output_of(module, url, str(seconds), core=SERVER_CORE, log=place.folder / "load.log", seconds=300)

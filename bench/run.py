"""Measures the service over gRPC and REST beside a bare grpc.aio server and, where they can be had, three peers.

The server runs on core 0, the model's endpoint and the load on core 1, PostgreSQL and Valkey wherever there is room.
Machines are shared and noisy: rounds alternate between all that are compared, ratios are of medians.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from bench.figures import Board
from bench.peers import PROGRAM, measure_peers
from bench.processes import BenchError, check_machine
from bench.runs import latency, remote, wide
from bench.sections import PACED_DELAY, QUICK, TOKENS, Plan, memory, pace, rest, throughput, unary
from bench.service import Site, site
from bench.stores import bus, log
from bench.table import print_tables
from entrypoints.embedded import EmbeddedError

SECTIONS = {
    "throughput": throughput,
    "pace": pace,
    "latency": latency,
    "wide": wide,
    "remote": remote,
    "unary": unary,
    "rest": rest,
    "log": log,
    "bus": bus,
    "memory": memory,
}
ONCE = ("memory",)
SAME_FOR_PEERS = {"rest": "throughput"}
"""Sections that ask of the peers, which speak REST alone, what another one has asked already if it runs too."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables, and returns 1 if something could not be measured."""
    parsed = _parser().parse_args(arguments)
    names, plan = parsed.only or list(SECTIONS), QUICK if parsed.quick else Plan()
    board, with_peers, status = Board(), PROGRAM.exists() and not parsed.no_peers, 0
    try:
        check_machine()
        with site(_say) as place:
            _measure(place, board, names, plan, with_peers=with_peers)
    except (BenchError, EmbeddedError) as error:
        _say(str(error))
        status = 1
    except KeyboardInterrupt:
        return 130
    print_tables(board, peers_measured=with_peers, all_targets=not parsed.only)
    return status


def _measure(place: Site, board: Board, names: list[str], plan: Plan, *, with_peers: bool) -> None:
    """Runs the sections round by round, each beside its peers; raises BenchError at the end if one could not be."""
    failures = []
    for name in names:
        try:
            for number in range(1 if name in ONCE else plan.rounds):
                _say(f"{name}, round {number + 1}")
                SECTIONS[name](place, board, plan)
                if with_peers and SAME_FOR_PEERS.get(name) not in names:
                    _measure_peers(board, name, plan)
        except BenchError as error:
            failures.append(f"{name} was not measured: {error}")
    if failures:
        raise BenchError("; ".join(failures))


def _measure_peers(board: Board, name: str, plan: Plan) -> None:
    words = {
        "throughput": (str(TOKENS),),
        "rest": (str(TOKENS),),
        "pace": (str(plan.paced_tokens), str(PACED_DELAY)),
    }.get(name)
    if words:
        _say(f"{name}, peers")
        for peer, values in measure_peers(PROGRAM, *words).items():
            board.add(peer, values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./bin/dev bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round, shorter: for a first look")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="measure this alone; may be given repeatedly")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out")
    return parser


def _say(line: str) -> None:
    print(f"bench {time.strftime('%H:%M:%S')}: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Others who do the same, measured by a program of their own, if it is there: its lines are read, nothing else."""

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from bench.figures import Figure
from bench.processes import ROOT, BenchError

PROGRAM = ROOT.parent / "shared" / "bench" / "run-peers"
NAMES = {"fastapi_openai": "FastAPI + openai", "fastapi_langgraph": "FastAPI + LangGraph", "litellm": "LiteLLM"}
FASTAPI, _, LITELLM = NAMES.values()
SECONDS = 900.0

_STREAMS = re.compile(
    r"(?P<peer>\w+) +(?P<streams>\d+) streams: (?P<rate>\d+) tokens/s, "
    r"first token p50 (?P<p50>[\d.]+) ms p99 (?P<p99>[\d.]+) ms, answers without a token: 0"
)
_CPU = re.compile(r"(?P<peer>\w+) +(?P<cpu>\d+) us of CPU per token")
_RSS = re.compile(r"(?P<peer>\w+) +RSS (?P<mebibytes>\d+) MB")
_BY_STREAMS = {
    "1": (Figure.TOKENS_1, Figure.FIRST_1_P50, Figure.FIRST_1_P99),
    "32": (Figure.TOKENS_32, Figure.FIRST_32_P50, Figure.FIRST_32_P99),
    "200": (Figure.PACED_TOKENS, Figure.PACED_FIRST_P50, Figure.PACED_FIRST_P99),
}


def measure_peers(program: Path, *words: str) -> dict[str, dict[Figure, float]]:
    """Runs the program and returns each peer's values. Raises BenchError if it fails or says nothing of somebody."""
    status, printed, complaints = _run([str(program), *words])
    found = read_peers(printed)
    if status or set(found) != set(NAMES.values()):
        said = (complaints or printed).strip().splitlines()[-1:] or ["it said nothing"]
        raise BenchError(f"{program.name} measured {sorted(found)}, not all peers: {said[0]}")
    return found


def read_peers(output: str) -> dict[str, dict[Figure, float]]:
    """Returns the values in what the program printed, by peer."""
    found: dict[str, dict[Figure, float]] = {}
    for line in output.splitlines():
        for pattern, values in ((_STREAMS, _of_streams), (_CPU, _of_cpu), (_RSS, _of_rss)):
            if match := pattern.fullmatch(line.strip()):
                name = NAMES.get(match["peer"], match["peer"])
                found.setdefault(name, {}).update(values(match))
    return found


def _run(command: list[str]) -> tuple[int, str, str]:
    """Runs a command to its end and returns its status and what it printed; none of its children is left behind."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        printed, complaints = process.communicate(timeout=SECONDS)
        return process.returncode, printed, complaints
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} was not done after {SECONDS:.0f} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)


def _of_streams(match: re.Match[str]) -> dict[Figure, float]:
    figures = _BY_STREAMS.get(match["streams"], ())
    return dict(zip(figures, map(float, (match["rate"], match["p50"], match["p99"])), strict=False))


def _of_cpu(match: re.Match[str]) -> dict[Figure, float]:
    return {Figure.PACED_CPU: float(match["cpu"])}


def _of_rss(match: re.Match[str]) -> dict[Figure, float]:
    return {Figure.RSS_LOADED: float(match["mebibytes"]) * 1.048576}

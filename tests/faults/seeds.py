"""The fault suite with many seeds and larger scenarios, one after the other: `./bin/dev faults --seeds 5`."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.figures import Figures


def main() -> int:
    """Runs the suite once for each seed, prints all figures together, and returns 1 if any seed found an offence."""
    parsed, words = _parser().parse_known_args()
    first = parsed.first if parsed.first is not None else random.randrange(1_000_000)
    failed, figures = [], Figures()
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "figures.jsonl")
        for seed in range(first, first + parsed.seeds):
            print(f"CHATBACK_FAULT_SEED={seed} CHATBACK_FAULT_SCALE={parsed.scale:g}", flush=True)
            if _run(seed, parsed.scale, saved, words):
                failed.append(seed)
        if saved.exists():
            figures.load(saved)
    print(f"{parsed.seeds} seeds together", *figures.table(), sep="\n")
    print(f"failed: {failed}" if failed else "no seed found an offence")
    return 1 if failed else 0


def _run(seed: int, scale: float, saved: Path, words: list[str]) -> int:
    chosen = {"CHATBACK_FAULT_SEED": seed, "CHATBACK_FAULT_SCALE": scale, "CHATBACK_FAULT_FIGURES": saved}
    environment = {**os.environ, **{name: str(value) for name, value in chosen.items()}}
    named = [] if any(word.startswith("tests/") for word in words) else ["tests/faults"]
    command = [sys.executable, "-m", "pytest", *named, *words]
    return subprocess.call(command, env=environment)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./bin/dev faults", description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (default: 1)")
    parser.add_argument("--first", type=int, help="the first of them (default: any)")
    parser.add_argument("--scale", type=float, default=5, help="how many times larger than in CI (default: 5)")
    return parser


if __name__ == "__main__":
    sys.exit(main())

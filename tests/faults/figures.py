"""What the scenarios measured, and how large they are to be."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

SEED = int(os.environ.get("CHATBACK_FAULT_SEED", "1"))
"""What chance begins with: the same seed plans the same faults, though machines carry them out in their own time."""
SCALE = float(os.environ.get("CHATBACK_FAULT_SCALE", "1"))
"""How many times larger than in CI the scenarios are."""
SAVED_TO = os.environ.get("CHATBACK_FAULT_FIGURES", "")
"""A file to which the figures are added, one line of JSON a session; empty for none."""


def scaled(count: int, at_most: int = 1_000_000) -> int:
    """Returns how many of something a scenario takes that takes so many in CI."""
    return min(at_most, max(1, round(count * SCALE)))


def percentile(samples: Sequence[float], share: float) -> float:
    """Returns the smallest sample that is not below this share of them."""
    return sorted(samples)[max(0, ceil(share * len(samples)) - 1)]


@dataclass(slots=True)
class Figures:
    """Samples, and counts, by what they are of; the unit is part of the name."""

    samples: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, *samples: float) -> None:
        """Takes samples in."""
        self.samples[name].extend(samples)

    def count(self, name: str, number: int) -> None:
        """Adds to a count."""
        self.counts[name] += number

    def table(self) -> Sequence[str]:
        """Returns a line for each name: how many samples, median, 99th percentile and largest, or the count."""
        return [
            f"{name:<76} n {len(taken):>5}  p50 {percentile(taken, 0.5):>7.3f}  p99 {percentile(taken, 0.99):>7.3f}"
            f"  max {max(taken):>7.3f}"
            for name, taken in sorted(self.samples.items())
        ] + [f"{name:<76} {number:>7}" for name, number in sorted(self.counts.items())]

    def save(self, path: Path) -> None:
        """Adds the samples to a file."""
        with path.open("a") as file:
            file.write(json.dumps([self.samples, self.counts]) + "\n")

    def load(self, path: Path) -> None:
        """Takes in all samples of a file."""
        for line in path.read_text().splitlines():
            samples, counts = json.loads(line)
            for name, taken in samples.items():
                self.add(name, *taken)
            self.counts.update(counts)

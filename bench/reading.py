"""The clocks that are read before and after a load."""

import time
from dataclasses import dataclass
from typing import Self

import psutil

from bench.processes import LOAD_CORE


@dataclass(frozen=True, slots=True)
class Reading:
    """The clocks at one moment, all in seconds."""

    wall: float
    server: float
    load_core_idle: float

    @classmethod
    def now(cls, server: psutil.Process) -> Self:
        """Reads all clocks."""
        spent = server.cpu_times()
        core = psutil.cpu_times(percpu=True)[LOAD_CORE]
        return cls(time.perf_counter(), spent.user + spent.system, core.idle + getattr(core, "iowait", 0.0))

    def load_core_busy(self, later: Self) -> float:
        """Returns the share of the time up to a later reading in which the load's core worked."""
        return max(0.0, 1 - (later.load_core_idle - self.load_core_idle) / (later.wall - self.wall))

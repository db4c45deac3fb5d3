"""CPU usage of this machine or container, which a leader of the Kinesis Client Library (KCL) may compare the workers by."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

VALUES = 10
"""Number of last values that a worker announces (KCL 3.x, `WorkerMetricStats`)."""

_STAT = Path("proc/stat")
_CGROUP_USAGE, _CGROUP_LIMIT = Path("sys/fs/cgroup/cpu.stat"), Path("sys/fs/cgroup/cpu.max")


class CpuUsage:
    """Measures the CPU usage between two samples: of the container, if it has a limit (cgroup v2), else of the machine.

    Without Linux's /proc, the load average of the last minute is used instead.

    Args:
        root: Root of the file system.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before: tuple[float, float] | None = None
        self._values: deque[float] = deque(maxlen=VALUES)

    def sample(self, now: float) -> list[float]:
        """Take a sample, and return the last values in percent, newest last.

        Args:
            now: Seconds since an arbitrary start.
        """
        counted = self._container(now) or self._machine()
        if counted is None:
            self._add(_load())
        else:
            if self._before is not None and counted[1] > self._before[1]:
                self._add(100 * (counted[0] - self._before[0]) / (counted[1] - self._before[1]))
            self._before = counted
        return list(self._values)

    def _add(self, percent: float) -> None:
        self._values.append(round(min(100.0, max(0.0, percent)), 2))

    def _container(self, now: float) -> tuple[float, float] | None:
        """Return the used and the available CPU seconds of a container with a limit (kernel documentation, cgroup v2)."""
        try:
            quota, period = (self._root / _CGROUP_LIMIT).read_text("ascii").split()
            fields = dict(line.split() for line in (self._root / _CGROUP_USAGE).read_text("ascii").splitlines())
            return int(fields["usage_usec"]) / 1e6, now * int(quota) / int(period)
        except (OSError, ValueError, KeyError):  # no file, or quota is "max"
            return None

    def _machine(self) -> tuple[float, float] | None:
        """Return the used and the available CPU time of the machine, in ticks (man page `proc_stat`)."""
        try:
            first = (self._root / _STAT).read_text("ascii").split("\n", 1)[0].split()
            ticks = [int(field) for field in first[1:9]]
            total = sum(ticks)
            return total - ticks[3] - ticks[4], total
        except (OSError, ValueError, IndexError):
            return None


def _load() -> float:
    """Return the load of the last minute in percent of the CPUs. 0 if the system does not tell it."""
    average = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return 100 * average / (os.cpu_count() or 1)

"""CPU time and peak memory of a process and of those that it started, read from outside."""

from __future__ import annotations

import time
from pathlib import Path


def processes(root: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [root]
    for parent in found:
        children = Path(f"/proc/{parent}/task/{parent}/children")
        threads = Path(f"/proc/{parent}/task").iterdir() if children.exists() else ()
        for thread in threads:
            try:
                found += [int(child) for child in (thread / "children").read_text(encoding="ascii").split()]
            except FileNotFoundError:
                continue  # the thread has ended
    return found


def cpu_seconds(root: int) -> float:
    """Return the CPU seconds, user and system, of a process and its descendants, in nanoseconds' precision.

    The number of a process's CPU clock is made as `clock_getcpuclockid` of the C library makes it.
    """
    return sum(time.clock_gettime(~process << 3 | 2) for process in processes(root))


def peak_bytes(root: int) -> int:
    """Return the sum of the peak resident memory of a process and its descendants."""
    total = 0
    for process in processes(root):
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        total += int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return total

"""Java libraries: the Kinesis Client Library and the Kinesis Producer Library, with the CPU time of all their processes.

The Java process prints its counters for each line of its input. The warm-up is long, because a JVM compiles while it runs.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from urllib.parse import urlsplit

from flow import asked, print_windows
from lease_table import fresh_leases
from process_tree import cpu_seconds, peak_bytes, processes

flow = asked()
START_SECONDS = 80
"""A KCL with default options takes its first lease after half a minute."""


def arguments() -> list[str]:
    """Return the arguments of the Java process."""
    if flow.way == "polling":
        application = fresh_leases(flow.dynamodb, flow.shards)
        return [flow.url, flow.ca or "-", flow.dynamodb, flow.stream, application, "busy"]
    aggregates = "aggregate" if flow.way == "aggregated" else "plain"
    port = str(urlsplit(flow.url).port)
    return [port, flow.stream, str(flow.size), str(flow.window), str(flow.keys), aggregates]


with tempfile.TemporaryFile() as log:
    program = subprocess.Popen(
        [*flow.command, *arguments()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None

    def counters() -> list[int]:
        """Return the counters of the Java process: records, bytes and, of a producer, failed records."""
        program.stdin.write("count\n")
        program.stdin.flush()
        line = program.stdout.readline()
        if not line:
            log.seek(0)
            raise SystemExit("it ended: " + " | ".join(log.read().decode(errors="replace").splitlines()[-3:]))
        return [int(number) for number in line.split()]

    deadline = time.monotonic() + START_SECONDS
    while counters()[0] == 0:
        if time.monotonic() > deadline:
            log.seek(0)
            said = log.read().decode(errors="replace").splitlines()
            raise SystemExit(f"no record within {START_SECONDS} s: {' | '.join(said[-3:])}")
        time.sleep(0.1)
    time.sleep(flow.warm_up)
    windows = []
    for _ in range(flow.windows):
        before, cpu_before, began = counters(), cpu_seconds(program.pid), time.perf_counter()
        time.sleep(flow.seconds)
        after, used, wall = counters(), cpu_seconds(program.pid) - cpu_before, time.perf_counter() - began
        records, size = after[0] - before[0], after[1] - before[1]
        flow.check(records > 0 and size == records * flow.size and not any(after[2:]))
        windows.append({"records": records, "bytes": size, "wall": wall, "cpu": used})
    memory = peak_bytes(program.pid)
    program.stdin.close()
    try:
        program.wait(5)
    except subprocess.TimeoutExpired:
        for process in reversed(processes(program.pid)):
            os.kill(process, 9)
print_windows(windows, flow.version, memory)

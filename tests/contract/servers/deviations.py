"""Where the servers are known to differ from AWS: deviations.txt, a line for each case that fails on a server.

A line is `server | case | what it does instead`, where `case` is `module::function`, with the parameters in brackets if
only some of them fail. Such a case is expected to fail; if it passes, the test run says so and the line must go.
"""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).parent / "deviations.txt"


def deviations() -> dict[tuple[str, str], str]:
    """Return what is known: for a server and a case, what it does instead."""
    known = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            server, case, instead = (part.strip() for part in line.split(" | ", 2))
            assert (server, case) not in known, f"twice: {line}"
            known[server, case] = instead
    return known

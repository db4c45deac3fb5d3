"""Owners of leases: names of workers. On the same machine a name shows whether its process still runs."""

from __future__ import annotations

import os
import socket
import sys
import uuid

_PROCESS = uuid.uuid4().hex[:8]
"""Distinguishes this process from an earlier one with the same id, such as process 1 of a container that was restarted."""


def owner_name() -> str:
    """Return a new name for a worker of this process: host, process id, and a unique suffix."""
    return f"{socket.gethostname()}:{os.getpid()}:{_PROCESS}{uuid.uuid4().hex[:8]}"


def runs(owner: str) -> bool:
    """Return True if an owner's process is known to run. False if that is unknown, as on another machine.

    A worker that is closed releases its leases. A worker that was killed does not, and its process no longer exists.
    """
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    unique = owner.rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdecimal():
        return False
    process_id = int(rest)
    if process_id == os.getpid():
        return unique.startswith(_PROCESS)
    if sys.platform == "win32":  # on Windows the call below ends the process
        return False
    try:
        os.kill(process_id, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True

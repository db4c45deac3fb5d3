"""Default IDs of workers: unique, and readable in a lease table."""

from __future__ import annotations

import os
import socket
import uuid


def owner_name() -> str:
    """Return a new ID for a worker of this process: host, process id, and a unique suffix."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:16]}"

"""Default IDs of workers."""

from __future__ import annotations

import os
import socket

from kinstream.consume.lease.owner import owner_name


def test_id_names_its_host_and_process_and_is_unique() -> None:
    assert owner_name().startswith(f"{socket.gethostname()}:{os.getpid()}:")
    assert owner_name() != owner_name()

"""The AWS SDK for JavaScript on our server: it speaks HTTP/2 to Kinesis, and signs `:authority` instead of `host`."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from bench.ground import ENVIRONMENTS, NotPossible
from tests.contract.servers.processes import node_package

from kinstream.local import Server

PACKAGE, VERSION = "@aws-sdk/client-kinesis", "3.1143.0"
SCRIPT = Path(__file__).parent / "clients" / "javascript.mjs"


@pytest.mark.parametrize("port", ["plain", "tls"])
def test_sdk_writes_and_reads(port: str) -> None:
    try:
        node_package(PACKAGE, VERSION)
    except NotPossible as reason:
        pytest.skip(str(reason))
    with Server(tls_port=0, transition=0) as server:
        url = server.url if port == "plain" else str(server.tls_url)
        env = {**os.environ, "NODE_EXTRA_CA_CERTS": str(server.ca_file)}
        began = time.time() * 1000
        run = subprocess.run(
            ["node", SCRIPT, url],
            cwd=ENVIRONMENTS / PACKAGE,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said["failed"] == 0
    assert said["refused"] == "ResourceNotFoundException"
    assert sorted((key, data) for key, data, _ in said["read"]) == sorted((f"key-{n}", [n, 0, 255]) for n in range(100))
    assert all(began - 1000 < arrival < time.time() * 1000 + 1000 for _, _, arrival in said["read"])

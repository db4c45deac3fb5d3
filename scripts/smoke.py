"""Check an installed kinstream: write records to a local Kinesis, read them back, and run the commands.

Uses the package that is installed for this interpreter, not the checkout, and needs the extra `local`. An argument, "compiled" or
"pure", is the hot path that must run. Exits with 1 and the reason if anything differs from what is expected.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from kinstream import Credentials, blocking
from kinstream.local import Server

RECORDS = 1000
HOT_PATHS = {"compiled": "(compiled hot path)", "pure": "(pure Python)"}


def main(expected: str | None) -> str | None:
    """Run all checks. Return the reason of the first failure, or None."""
    version = command("--version")
    if expected is not None and HOT_PATHS[expected] not in version:
        return f"kinstream --version is {version!r}, expected {HOT_PATHS[expected]}"
    lost = write_and_read()
    if lost:
        return f"{len(lost)} records were lost, doubled or changed"
    command("demo", "--records", str(RECORDS))
    print(f"{version}, Python {sys.version.split()[0]}: {RECORDS} records written and read, demo passed")
    return None


def write_and_read() -> Counter[tuple[str | None, bytes]]:
    """Write records to a local Kinesis and read them back. Return those that differ."""
    wanted = [(f"key {n % 50}", f"record {n}".encode()) for n in range(RECORDS)]
    with Server() as server:
        credentials = Credentials(server.access_key_id, server.secret_access_key)
        with blocking.Client(region=server.region, credentials=credentials, endpoint_url=server.url) as client:
            client.call("CreateStream", {"StreamName": "smoke", "ShardCount": 2})
            with blocking.Producer("smoke", client=client) as producer:
                producer.put_many((data, key) for key, data in wanted)
            with blocking.Consumer("smoke", client=client, start="TRIM_HORIZON", until="now") as consumer:
                found = Counter((record.partition_key, record.data) for record in consumer)
    found.subtract(wanted)
    return Counter({record: count for record, count in found.items() if count})


def command(*arguments: str) -> str:
    """Run the command `kinstream`. Return its output."""
    line = [sys.executable, "-m", "kinstream", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"kinstream {' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))

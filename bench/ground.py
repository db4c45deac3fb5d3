"""What a benchmark stands on: the endpoint with its canned answers, a certificate authority, an environment for each peer."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cbor2
import trustme

BENCH = Path(__file__).parent
BUILD = BENCH / ".build"
ENVIRONMENTS = BENCH / ".envs"

ARRIVED = 1_787_036_486_712
"""Milliseconds since 1970 at which the canned records arrived."""
SEQUENCE_NUMBER = 49_671_532_811_004_187_563_129_803_617_842_091_563_287_410_296_118_304_770
"""56 digits, as the service's are."""


class NotPossible(Exception):
    """Something that the benchmark needs is not to be had here; the message says why."""


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint.

    Attributes:
        plain: Its URL without TLS.
        tls: Its URL with TLS; None where there is no OpenSSL to build with.
        ca: PEM file of the authority that signed its certificate.
        pid: Its process.
    """

    plain: str
    tls: str | None
    ca: str
    pid: int

    def cpu(self) -> float:
        """Return the CPU seconds that the endpoint has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shard_iterator(size: int) -> str:
    """Return the iterator whose pages hold records of `size` bytes; as long as the service's usual ones."""
    return f"bench-{size}-".ljust(236, "A")


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other run measures: two at a time would only measure each other."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another run to end ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def endpoint(sizes: list[int], page: int) -> Iterator[Endpoint]:
    """Build the endpoint, run it, and end it.

    Args:
        sizes: Bytes of data in the records that it gives.
        page: Records that one GetRecords gives.

    Raises:
        NotPossible: It cannot be built or run here.
    """
    if not sys.platform.startswith("linux"):
        raise NotPossible("the endpoint uses epoll: it runs on Linux only")
    with tempfile.TemporaryDirectory(prefix="kinstream-bench-") as name:
        yield from _running(Path(name), sizes, page)


def _running(place: Path, sizes: list[int], page: int) -> Iterator[Endpoint]:
    program, with_tls = _compiled()
    ca, certificate, key = _certificates(place)
    arguments = [certificate, key] if with_tls else ["-", "-"]
    process = subprocess.Popen(
        [program, *arguments, *_answers(place, sizes, page)],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        ports = process.stdout.readline().split()
        if len(ports) != 2:
            raise NotPossible("the endpoint did not start")
        tls = f"https://127.0.0.1:{ports[1]}" if with_tls else None
        yield Endpoint(f"http://127.0.0.1:{ports[0]}", tls, ca, process.pid)
    finally:
        process.terminate()
        process.wait()


def _compiled() -> tuple[str, bool]:
    """Return the endpoint's program, and whether it speaks TLS."""
    source, program = BENCH / "endpoint.c", BUILD / "endpoint"
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotPossible("no C compiler: install one (Debian: apt install gcc libc6-dev libssl-dev)")
    command = [compiler, "-O2", "-o", str(program), str(source)]
    with_tls = subprocess.run([*command, "-lssl", "-lcrypto"], capture_output=True, text=True, check=False)
    if with_tls.returncode == 0:
        return str(program), True
    without = subprocess.run([*command, "-DNO_TLS"], capture_output=True, text=True, check=False)
    if without.returncode != 0:
        raise NotPossible(f"endpoint.c does not compile:\n{without.stderr}")
    print("TLS cells are skipped: no OpenSSL headers to build the endpoint with (Debian: apt install libssl-dev;")
    print("Fedora: dnf install openssl-devel)")
    return str(program), False


def _certificates(place: Path) -> tuple[str, str, str]:
    """Make an authority and the endpoint's certificate; return the files of the authority, the certificate and its key."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = [place / name for name in ("ca.pem", "endpoint.pem", "endpoint.key")]
    authority.cert_pem.write_to_path(str(files[0]))
    files[1].unlink(missing_ok=True)
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(files[1]), append=True)
    certificate.private_key_pem.write_to_path(str(files[2]))
    return str(files[0]), str(files[1]), str(files[2])


def _answers(place: Path, sizes: list[int], page: int) -> list[str]:
    """Write the canned answers, members in the service model's order; return what the endpoint is told of them."""
    told = []

    def write(operation: str, wire: str, mark: str, body: bytes) -> None:
        file = place / f"{operation}.{mark or 'any'}.{wire}"
        file.write_bytes(body)
        told.append(f"{operation}:{wire}:{mark}:{file}")

    results = [{"SequenceNumber": str(SEQUENCE_NUMBER + n), "ShardId": f"shardId-{n % 8:012}"} for n in range(500)]
    put = {"FailedRecordCount": 0, "Records": results, "EncryptionType": "NONE"}
    write("PutRecords", "json", "", _json(put))
    write("PutRecords", "cbor", "", cbor2.dumps(put))
    for size in sizes:
        source = random.Random(size)
        records = [
            (source.randbytes(size), f"user-{source.randrange(100_000):05}", str(SEQUENCE_NUMBER + n), ARRIVED + n)
            for n in range(page)
        ]
        rest = {"NextShardIterator": shard_iterator(size), "MillisBehindLatest": 0}
        as_json = [
            _received(base64.b64encode(data).decode(), key, number, at / 1000) for data, key, number, at in records
        ]
        as_cbor = [_received(data, key, number, cbor2.CBORTag(1, at)) for data, key, number, at in records]
        mark = f"bench-{size}-"
        write("GetRecords", "json", mark, _json({"Records": as_json, **rest}))
        write("GetRecords", "cbor", mark, cbor2.dumps({"Records": as_cbor, **rest}))
    return told


def _received(data: object, key: object, number: object, arrived: object) -> dict[str, object]:
    return {"SequenceNumber": number, "ApproximateArrivalTimestamp": arrived, "Data": data, "PartitionKey": key}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def environment(peer: str, requirements: list[str]) -> str:
    """Return the Python of a peer's own environment, made on first use and when what it holds has changed.

    Raises:
        NotPossible: It cannot be installed.
    """
    place = ENVIRONMENTS / peer
    python, stamp = place / "bin" / "python", place / "bench.stamp"
    project = (BENCH.parent / "pyproject.toml").read_bytes() if "-e" in requirements else b""
    holds = hashlib.sha256(" ".join(requirements).encode() + project).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == holds:
        return str(python)
    print(f"installing {peer} ...", flush=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotPossible((done.stderr.strip() or "pip failed").splitlines()[-1])
    stamp.write_text(holds, encoding="ascii")
    return str(python)

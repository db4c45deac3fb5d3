"""Environment of a benchmark: the endpoint with canned responses, a certificate authority, a virtual environment per peer."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

BENCH = Path(__file__).parent
BUILD = BENCH / ".build"
ENVIRONMENTS = BENCH / ".envs"


class NotPossible(Exception):
    """The benchmark cannot run on this machine. The message has the reason."""


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint.

    Attributes:
        plain: Its URL without TLS.
        tls: Its URL with TLS; None if there is no OpenSSL to build with.
        http2: Its URL with TLS and, if the client requests it, HTTP/2. It is for subscriptions alone.
        ca: PEM file of the authority that signed its certificate.
        pid: Its process.
    """

    plain: str
    tls: str | None
    http2: str | None
    ca: str
    pid: int

    def cpu(self) -> float:
        """Return the CPU seconds that the endpoint has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
def endpoint(answers: Callable[[Path], list[str]]) -> Iterator[Endpoint]:
    """Build the endpoint, run it, and end it.

    Args:
        answers: Writes the responses into a folder, and returns the endpoint's arguments for them (canned.py).

    Raises:
        NotPossible: It cannot be built or run here.
    """
    if not sys.platform.startswith("linux"):
        raise NotPossible("the endpoint uses epoll: it runs on Linux only")
    with tempfile.TemporaryDirectory(prefix="kinstream-bench-") as name:
        yield from _running(Path(name), answers)


def _running(place: Path, answers: Callable[[Path], list[str]]) -> Iterator[Endpoint]:
    program, with_tls = _compiled(place)
    ca, certificate, key = _certificates(place)
    arguments = [certificate, key] if with_tls else ["-", "-"]
    command = [program, *arguments, *answers(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            ports = process.stdout.readline().split()
            if len(ports) != 3:
                raise NotPossible("the endpoint did not start")
            tls, http2 = (f"https://127.0.0.1:{port}" if with_tls else None for port in ports[1:])
            yield Endpoint(f"http://127.0.0.1:{ports[0]}", tls, http2, ca, process.pid)
        finally:
            process.terminate()


def _compiled(place: Path) -> tuple[str, bool]:
    """Return the endpoint's program, and whether it speaks TLS."""
    sources, program = sorted(map(str, (BENCH / "endpoint").glob("*.c"))), place / "endpoint"
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotPossible("no C compiler: install one (Debian: apt install gcc libc6-dev libssl-dev)")
    command = [compiler, "-O2", "-o", str(program), *sources]
    with_tls = subprocess.run([*command, "-lssl", "-lcrypto"], capture_output=True, text=True, check=False)
    if with_tls.returncode == 0:
        return str(program), True
    without = subprocess.run([*command, "-DNO_TLS"], capture_output=True, text=True, check=False)
    if without.returncode != 0:
        raise NotPossible(f"bench/endpoint does not compile:\n{without.stderr}")
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


def environment(peer: str, requirements: list[str]) -> str:
    """Return the Python of a peer's own environment, made on first use and when its requirements have changed.

    Raises:
        NotPossible: It cannot be installed.
    """
    place = ENVIRONMENTS / peer
    python, stamp = place / "bin" / "python", place / "bench.stamp"
    project = b""
    if "-e" in requirements:
        parts = [BENCH.parent / "pyproject.toml", *sorted((BENCH.parent / "src" / "_speed").glob("*"))]
        project = b"".join(part.read_bytes() for part in parts if part.is_file())
    holds = hashlib.sha256(" ".join(requirements).encode() + project).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == holds:
        return str(python)
    print(f"installing {peer} ...", flush=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    for command in ([sys.executable, "-m", "venv", "--clear", str(place)], *([install] if requirements else [])):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotPossible((done.stderr.strip() or "pip failed").splitlines()[-1])
    stamp.write_text(holds, encoding="ascii")
    return str(python)


def surroundings() -> dict[str, str]:
    """Return the environment of a client: the user's profile, proxy and certificates must not affect the measurement."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("AWS_", "KINSTREAM_", "SSL_CERT")) and "PROXY" not in name.upper()
    }
    return kept | {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


def run_peer(
    python: str, script: str, told: dict[str, Any], *, timeout: float, pure: bool = False
) -> dict[str, Any] | str:
    """Run a script of peers/ in a process of its own; return its measurements, or why it has none.

    Args:
        python: The peer's own.
        script: The script's name.
        told: Its argument, encoded as JSON.
        timeout: Seconds after which it is ended.
        pure: Whether our compiled hot path is left out.
    """
    try:
        done = subprocess.run(
            [python, str(BENCH / "peers" / script), json.dumps(told)],
            capture_output=True,
            text=True,
            check=False,
            env=surroundings() | ({"KINSTREAM_PURE": "1"} if pure else {}),
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return "it did not end"
    if done.returncode != 0 or not done.stdout.strip():
        return (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1]
    return dict(json.loads(done.stdout.splitlines()[0]))


def processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"

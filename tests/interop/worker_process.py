"""A worker of an application as a process: a real KCL, kcl-rs or kinstream, with the same line protocol and options."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from bench import java_build
from bench.ground import NotPossible
from tests.interop.services import REGION, Services
from tests.interop.workers.protocol import EventLine, RecordLine, parse

import kinstream

ROOT = Path(__file__).parents[2]

JAVA_SOURCES = Path(__file__).parent / "java"
SETTINGS = {"2.7.2": "2.x", "3.4.2": "3.4", "3.5.1": "3.5"}
"""The versions of the Java library, and the folder with the settings that only such a version has."""

JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError")
"""Flags with which two JVMs and the Python side fit in two cores and 2 GiB."""

JAVA = tuple(f"java-{version}" for version in SETTINGS)
KINDS = (*JAVA, "amazon_kclpy", "kcl-rs", "kinstream")

KCLPY, KCLPY_KCL = "3.1.3", "3.1.3"
"""The version of amazon_kclpy, and of the Java library in it (its pom.xml)."""
KCLPY_FOLDER = ROOT / "build" / f"amazon_kclpy-{KCLPY}"


def unavailable(kind: str) -> str | None:
    """Return the reason why no worker of a kind can run here, or None."""
    if kind == "kinstream":
        return None if hasattr(kinstream, "DynamoDBLeaseStore") else "this version has no DynamoDBLeaseStore"
    if kind == "kcl-rs":
        return None if importlib.util.find_spec("kcl_rs") else "not installed: kcl-rs"
    return java_build.missing()


class WorkerProcess:
    """A worker that runs.

    Args:
        kind: One of KINDS.
        worker_id: Its name in the lease table.
        services: The servers that it uses.
        folder: Folder for its output.
        options: Options of the worker script, such as `stream` and `application`.

    Attributes:
        killed: Time, in seconds since 1970, at which it was killed, or None.
        records: Records that it delivered so far, as of the last `read`.
        events: Its events so far, as of the last `read`.
    """

    def __init__(self, kind: str, worker_id: str, services: Services, folder: Path, options: dict[str, str]) -> None:
        self.kind = kind
        self.worker_id = worker_id
        self.killed: float | None = None
        self.stopped: float | None = None
        self.records: list[RecordLine] = []
        self.events: list[EventLine] = []
        self._output = folder / f"{worker_id}.out"
        self._errors = folder / f"{worker_id}.err"
        self._offset = 0
        self._start = time.time()
        given = options | {"worker_id": worker_id} | services.options(tls=kind in (*JAVA, "amazon_kclpy"))
        tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*tied, *_command(kind), *(f"{name}={value}" for name, value in given.items())],
                cwd=ROOT,
                env=_environment(services),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
            )

    def __repr__(self) -> str:
        return f"<{self.worker_id} ({self.kind})>"

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def failed(self) -> bool:
        """True if it ended without being stopped or killed, or with an error."""
        code = self._process.poll()
        return code is not None and self.killed is None and (self.stopped is None or code != 0)

    @property
    def whole_log(self) -> str:
        """Its log."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    @property
    def log(self) -> str:
        """The end of its log, for the message of a failed test."""
        return self.whole_log[-4000:]

    def read(self) -> None:
        """Read the lines that were written since the last call."""
        with self._output.open("rb") as output:
            output.seek(self._offset)
            new = output.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.decode().splitlines():
            parsed = parse(line)
            if isinstance(parsed, RecordLine):
                self.records.append(parsed)
            else:
                self.events.append(parsed)

    def seconds_until(self, name: str) -> float:
        """Return the seconds from its start to its first event of a name."""
        return next(event.time for event in self.events if event.name == name) - self._start

    def seconds_until_record(self) -> float:
        """Return the seconds from its start to its first record, or infinity if it has none so far."""
        return self.records[0].time - self._start if self.records else math.inf

    def of(self, name: str, shard: str | None = None) -> list[EventLine]:
        """Return its events of a name, of one shard or of all."""
        return [event for event in self.events if event.name == name and shard in (None, event.shard)]

    def stop(self) -> None:
        """Request an orderly stop."""
        assert self._process.stdin is not None
        self.stopped = time.time()
        self._process.stdin.write(b"stop\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.killed = time.time()
        self._process.kill()
        self._process.wait()

    def suspend(self) -> None:
        """Suspend it by SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue by SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, if it runs, and read the rest of its lines."""
        if self.running:
            self.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.read()


def java_classpath(kind: str) -> str:
    """Return the classpath of a Java worker. Builds it if necessary.

    Raises:
        NotPossible: It cannot be built here.
    """
    version = kind.removeprefix("java-")
    sources = [source for folder in ("worker", SETTINGS[version]) for source in (JAVA_SOURCES / folder).glob("*.java")]
    return java_build.classpath(java_build.KCL, sorted(sources), kcl_version=version)


def build(kind: str) -> None:
    """Build a worker if necessary.

    Raises:
        NotPossible: It cannot be built here.
    """
    if kind in JAVA:
        java_classpath(kind)
    if kind == "amazon_kclpy":
        _kclpy_classpath()
        _unpack_kclpy()


def _kclpy_classpath() -> str:
    return java_build.classpath(java_build.MULTILANG, [], kcl_version=KCLPY_KCL)


def _unpack_kclpy() -> None:
    """Unpack the source distribution of amazon_kclpy. To install it downloads more than a hundred jars."""
    if KCLPY_FOLDER.exists():
        return
    with tempfile.TemporaryDirectory() as place:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", place]
        done = subprocess.run(
            [*pip, f"amazon_kclpy=={KCLPY}"], capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode != 0:
            raise NotPossible(
                f"pip cannot download amazon_kclpy: {(done.stderr.strip() or 'no message').splitlines()[-1]}"
            )
        (archive,) = Path(place).glob("*.tar.gz")
        with tarfile.open(archive) as files:
            files.extractall(place, filter="data")
        shutil.move(Path(place) / KCLPY_FOLDER.name, KCLPY_FOLDER)


def _command(kind: str) -> list[str]:
    if kind in JAVA:
        return ["java", *JVM, "-cp", java_classpath(kind), "Worker"]
    if kind == "amazon_kclpy":
        return [sys.executable, "-m", "tests.interop.workers.amazon_kclpy_worker", f"classpath={_kclpy_classpath()}"]
    return [sys.executable, "-m", f"tests.interop.workers.{kind.replace('-', '_')}_worker"]


def _environment(services: Services) -> dict[str, str]:
    """Return the environment of a worker: that of the tests, with the endpoints for workers that have no options for them."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(KCLPY_FOLDER), os.environ.get("PYTHONPATH")]))
    return os.environ | {
        "PYTHONPATH": path,
        "AWS_ENDPOINT_URL": services.dynamodb_url,
        "AWS_ENDPOINT_URL_KINESIS": services.kinesis.url,
        "AWS_ACCESS_KEY_ID": services.kinesis.access_key_id,
        "AWS_SECRET_ACCESS_KEY": services.kinesis.secret_access_key,
        "AWS_REGION": REGION,
    }

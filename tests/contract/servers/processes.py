"""Local Kinesis servers, each in a process of its own on free loopback ports: ours and those of other projects.

    with running("moto") as server:
        server.url

The others are installed on first use, in bench/.envs, which git ignores. A server that cannot be
installed or started raises NotPossible, with the reason to skip its cases.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from bench.ground import BUILD, ENVIRONMENTS, NotPossible, environment

ACCESS_KEY_ID, SECRET_ACCESS_KEY, REGION = "local", "local", "us-east-1"

START_SECONDS = 15
"""Maximum seconds until a server responds, below the limit of a test."""

LOOPBACK_ONLY = Path(__file__).parent / "loopback_only.js"


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes:
        port: Its port without TLS.
        tls_port: Its port with TLS, for servers that have one.
        tls: TLS on `port`, for servers that have but one port.
        data: Folder for the data, or None for memory.
        check_signatures: Refuse wrong signatures, for servers on which this is optional.
        options: Additional command line options of our own server or of moto_process.py.
    """

    port: int
    tls_port: int
    tls: bool = False
    data: Path | None = None
    check_signatures: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """The command to run."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Recipe:
    """Recipe to install and start a server.

    Attributes:
        install: Installs it if necessary, and returns its version. Raises NotPossible.
        start: Returns the command to run.
    """

    install: Callable[[], str]
    start: Callable[[Settings], Start]


@dataclass
class Running:
    """A running server.

    Attributes:
        name: Name of the server.
        version: Its version.
        url: Its address without TLS (with TLS if that was selected for a server with one port).
        tls_port: Its port with TLS, if it has a separate one.
        pid: Its process.
    """

    name: str
    version: str
    url: str
    tls_port: int
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def has_tls_port(self) -> bool:
        """True if it has a separate port for TLS."""
        return self.name in ("kinstream", "kinesis-local")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def cpu(self) -> float:
        """Return the CPU seconds, user and system, of its process and of those that it started."""
        parents: dict[int, tuple[int, int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                    parents[int(entry.name)] = (int(fields[1]), int(fields[11]) + int(fields[12]))

        def ours(pid: int) -> bool:
            return pid == self.pid or (pid in parents and ours(parents[pid][0]))

        return sum(ticks for pid, (_, ticks) in parents.items() if ours(pid)) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End it by SIGKILL, at once: kinesis-local minds no other signal."""
        self.process.kill()
        self.process.wait()


# How each is had and started


def _our_version() -> str:
    return version("kinstream")


def _our_start(settings: Settings) -> Start:
    command = [sys.executable, "-m", "kinstream", "local", "--port", str(settings.port)]
    command += ["--tls-port", str(settings.tls_port), *settings.options]
    return Start(command + (["--data-dir", str(settings.data)] if settings.data else []))


def _moto_version() -> str:
    try:
        return version("moto")
    except ModuleNotFoundError:
        raise NotPossible("moto is not installed") from None


def _moto_start(settings: Settings) -> Start:
    command = [sys.executable, str(Path(__file__).with_name("moto_process.py")), "127.0.0.1", str(settings.port)]
    surroundings = {"MOTO_ACCOUNT_ID": "000000000000", "MOTO_PORT": str(settings.port)}
    if settings.check_signatures:
        surroundings["INITIAL_NO_AUTH_ACTION_COUNT"] = "0"
    return Start([*command, *settings.options, *(["--ssl"] if settings.tls else [])], surroundings)


def _ministack_version() -> str:
    return _python("ministack", ["ministack==1.5.33", "cbor2"])


def _ministack_start(settings: Settings) -> Start:
    surroundings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(settings.port),
        "SERVICES": "kinesis",
        "LOG_LEVEL": "ERROR",
        "DOCKER_HOST": "unix:///nonexistent",  # it would remove containers of its own kind
    }
    if settings.tls:
        surroundings["USE_SSL"] = "1"
    if settings.data:
        surroundings |= {"PERSIST_STATE": "1", "STATE_DIR": str(settings.data)}
    if settings.check_signatures:
        surroundings["AUTH"] = "true"
    return Start([str(ENVIRONMENTS / "ministack" / "bin" / "ministack")], surroundings)


def _kinesis_local_version() -> str:
    return node_package("kinesis-local", "0.6.2")


def _kinesis_local_start(settings: Settings) -> Start:
    brief = ("CREATE_STREAM", "DELETE_STREAM", "MERGE_SHARDS", "SPLIT_SHARD", "UPDATE_SHARD_COUNT", "UPDATE_STREAM_MODE",
             "START_STREAM_ENCRYPTION", "STOP_STREAM_ENCRYPTION", "REGISTER_STREAM_CONSUMER",
             "DEREGISTER_STREAM_CONSUMER")  # fmt: skip
    surroundings = {f"{action}_DURATION": "50ms" for action in brief} | {
        "KINESIS_MOCK_PLAIN_PORT": str(settings.port),
        "KINESIS_MOCK_TLS_PORT": str(settings.tls_port),
        "SHARD_LIMIT": "5000",
        "LOG_LEVEL": "ERROR",
    }
    if settings.data:
        surroundings |= {"SHOULD_PERSIST_DATA": "true", "PERSIST_PATH": str(settings.data)}
    folder = ENVIRONMENTS / "kinesis-local" / "node_modules" / "kinesis-local"  # it looks for its certificate here
    return Start(["node", "-r", str(LOOPBACK_ONLY), "main.js"], surroundings, folder)


def _kinesalite_version() -> str:
    return node_package("kinesalite", "3.3.3")


def _kinesalite_start(settings: Settings) -> Start:
    folder = ENVIRONMENTS / "kinesalite" / "node_modules" / "kinesalite"
    command = ["node", "-r", str(LOOPBACK_ONLY), "cli.js", "--port", str(settings.port), "--shardLimit", "5000"]
    command += [f"--{action}StreamMs=50" for action in ("create", "delete", "update")]
    command += ["--path", str(settings.data)] if settings.data else []
    return Start(command + (["--ssl"] if settings.tls else []), folder=folder)


FERROKINESIS = "0.6.0"


def _ferrokinesis_version() -> str:
    """Build it with cargo, which takes several minutes once."""
    folder = ENVIRONMENTS / "ferrokinesis"
    stamp = folder / "bench.stamp"
    if not stamp.exists() or stamp.read_text(encoding="ascii") != FERROKINESIS:
        if shutil.which("cargo") is None:
            raise NotPossible("needs cargo, which is not installed")
        print("building ferrokinesis ...", flush=True)
        command = ["cargo", "install", "ferrokinesis", "--version", FERROKINESIS, "--locked", "--root", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotPossible(f"cargo install failed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
        stamp.write_text(FERROKINESIS, encoding="ascii")
    return FERROKINESIS


def _ferrokinesis_start(settings: Settings) -> Start:
    command = [str(ENVIRONMENTS / "ferrokinesis" / "bin" / "ferrokinesis"), "--port", str(settings.port)]
    command += [f"--{action}-stream-ms=50" for action in ("create", "delete", "update")]
    return Start([*command, "--shard-limit", "5000", "--log-level", "error"])


RECIPES = {
    "kinstream": Recipe(_our_version, _our_start),
    "kinesis-local": Recipe(_kinesis_local_version, _kinesis_local_start),
    "ministack": Recipe(_ministack_version, _ministack_start),
    "moto": Recipe(_moto_version, _moto_start),
    "kinesalite": Recipe(_kinesalite_version, _kinesalite_start),
    "ferrokinesis": Recipe(_ferrokinesis_version, _ferrokinesis_start),
}
ONLY_COMPARED = {"ferrokinesis"}
"""Servers that `make compare-servers` compares, and on which the contract does not run."""


def install(name: str) -> str:
    """Install a server if necessary, and return its version. Raises NotPossible."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "installing").open("w") as lock:  # two test runs at a time would each spoil the other's
        fcntl.flock(lock, fcntl.LOCK_EX)
        return RECIPES[name].install()


def _python(name: str, requirements: list[str]) -> str:
    python = environment(name, requirements)
    asked = f"from importlib.metadata import version; print(version({name!r}))"
    return subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


def node_package(name: str, wanted: str) -> str:
    """Install a package of npm's in a folder of its own."""
    folder = ENVIRONMENTS / name
    stamp = folder / "bench.stamp"
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotPossible("needs Node.js and npm, which are not installed")
    if not stamp.exists() or stamp.read_text(encoding="ascii") != wanted:
        print(f"installing {name} ...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true}\n', encoding="ascii")
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", f"{name}@{wanted}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotPossible(f"npm install failed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
        stamp.write_text(wanted, encoding="ascii")
    return wanted


@contextlib.contextmanager
def running(name: str, **settings: Any) -> Iterator[Running]:
    """Start a server, wait until it responds, and kill it at the end.

    Args:
        name: One of RECIPES.
        settings: Members of `Settings`, but for the ports.

    Raises:
        NotPossible: It cannot be installed, or does not respond.
    """
    found = install(name)
    with _free_ports() as (port, tls_port):
        chosen = Settings(port, tls_port, **settings)
    start = RECIPES[name].start(chosen)
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="kinstream-server-") as home:
        # The kernel kills the server should this process be killed.
        tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        process = subprocess.Popen(
            [*tied, *start.command],
            cwd=start.folder or home,
            env=_surroundings(home) | start.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _wait_until_it_responds(name, process, port, log)
            yield Running(name, found, f"{'https' if chosen.tls else 'http'}://127.0.0.1:{port}", tls_port, process)
        finally:
            process.kill()
            process.wait()


def _surroundings(home: str) -> dict[str, str]:
    """Return the environment of a server: the machine's, without anybody's AWS configuration or proxy."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith("AWS_") and "PROXY" not in k.upper()}
    return kept | {"HOME": home, "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}


@contextlib.contextmanager
def _free_ports() -> Iterator[tuple[int, int]]:
    with socket.socket() as one, socket.socket() as other:
        for bound in (one, other):
            bound.bind(("127.0.0.1", 0))
        yield one.getsockname()[1], other.getsockname()[1]


def _wait_until_it_responds(name: str, process: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()
            raise NotPossible(f"{name} ended with {process.returncode}: {said[-1] if said else 'it said nothing'}")
        connection = HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/")
            connection.getresponse()
        except (ConnectionRefusedError, TimeoutError):
            time.sleep(0.05)
        except (OSError, HTTPException):
            return  # it speaks, though not this: TLS
        else:
            return
        finally:
            connection.close()
    raise NotPossible(f"{name} did not respond within {START_SECONDS} seconds")

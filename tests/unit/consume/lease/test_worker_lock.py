"""Locks of the workers of one machine, in one process and in several."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kinstream import LeaseStoreFailed
from kinstream.consume.lease import worker_lock
from kinstream.consume.lease.worker_lock import WorkerLocks

pytestmark = pytest.mark.skipif(not worker_lock.AVAILABLE, reason="requires flock")

HOLD = """
import sys
from pathlib import Path
from kinstream.consume.lease.worker_lock import WorkerLocks
locks = WorkerLocks(Path(sys.argv[1]))
locks.hold("a")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workers"


def holding(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_worker_has_ended_once_its_lock_is_released(folder: Path) -> None:
    mine, other = WorkerLocks(folder), WorkerLocks(folder)
    mine.hold("a")
    assert other.ended({"a"}) == frozenset()
    assert mine.ended({"a"}) == frozenset()
    mine.release()
    mine.release()
    assert other.ended({"a", "b"}) == frozenset({"a"})


def test_killed_process_has_ended_and_a_stopped_one_has_not(folder: Path) -> None:
    with holding(folder) as process:
        locks = WorkerLocks(folder)
        process.send_signal(signal.SIGSTOP)
        assert locks.ended({"a"}) == frozenset()
        process.kill()
        process.wait(10)
        assert locks.ended({"a"}) == frozenset({"a"})


def test_worker_that_starts_again_runs(folder: Path) -> None:
    first, second = WorkerLocks(folder), WorkerLocks(folder)
    first.hold("a")
    first.release()
    second.hold("a")
    assert first.ended({"a"}) == frozenset()


def test_two_workers_of_one_name_have_ended_when_both_have(folder: Path) -> None:
    first, second, other = WorkerLocks(folder), WorkerLocks(folder), WorkerLocks(folder)
    first.hold("a")
    second.hold("a")
    first.release()
    assert other.ended({"a"}) == frozenset()
    second.release()
    assert other.ended({"a"}) == frozenset({"a"})


def test_object_that_is_forgotten_releases_its_lock(folder: Path) -> None:
    WorkerLocks(folder).hold("a")
    gc.collect()
    assert WorkerLocks(folder).ended({"a"}) == frozenset({"a"})


def test_child_process_after_a_fork_does_not_hold_the_lock(folder: Path) -> None:
    """The parent ends while its child lives."""
    program = HOLD.replace(
        'print("held", flush=True)',
        """
import os, threading
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, b"x")
    threading.Event().wait(30)
    os._exit(0)
os.read(reading, 1)
print("held", flush=True)""",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        locks = WorkerLocks(folder)
        assert locks.ended({"a"}) == frozenset()
        process.kill()
        process.wait(10)
        assert locks.ended({"a"}) == frozenset({"a"})
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_files_of_ended_workers_without_leases_are_removed(folder: Path) -> None:
    locks = WorkerLocks(folder)
    locks.sweep(frozenset())
    for name in ("named", "free"):
        ended = WorkerLocks(folder)
        ended.hold(name)
        ended.release()
    locks.hold("running")
    locks.sweep(frozenset({"named"}))
    assert len(list(folder.iterdir())) == 2
    assert locks.ended({"named", "free", "running"}) == frozenset({"named"})


def test_file_names_its_worker(folder: Path) -> None:
    locks = WorkerLocks(folder)
    locks.hold("host:1:abc")
    (file,) = folder.iterdir()
    assert file.read_text() == "host:1:abc"
    locks.hold("b")
    assert locks.ended({"host:1:abc"}) == frozenset({"host:1:abc"})


def test_worker_waits_while_another_one_checks_its_lock(folder: Path) -> None:
    import fcntl

    locks = WorkerLocks(folder)
    locks.hold("a")
    locks.release()
    (path,) = folder.iterdir()
    checking = os.open(path, os.O_RDWR)
    fcntl.flock(checking, fcntl.LOCK_EX)
    holding = threading.Thread(target=locks.hold, args=("a",))
    holding.start()
    os.close(checking)
    holding.join(10)
    assert WorkerLocks(folder).ended({"a"}) == frozenset()


def test_lock_that_stays_locked_is_an_error(folder: Path) -> None:
    import fcntl

    locks = WorkerLocks(folder)
    locks.hold("a")
    locks.release()
    (path,) = folder.iterdir()
    checking = os.open(path, os.O_RDWR)
    fcntl.flock(checking, fcntl.LOCK_EX)
    with pytest.raises(LeaseStoreFailed, match=r"'a'.*held by another process"):
        locks.hold("a")
    os.close(checking)


def test_many_workers_that_start_and_check_at_once_are_never_reported_as_ended(folder: Path) -> None:
    wrong: list[str] = []
    done = threading.Event()

    def check() -> None:
        checking = WorkerLocks(folder)
        while not done.is_set():
            checking.sweep(frozenset())

    def run(name: str) -> None:
        other = WorkerLocks(folder)
        for _ in range(50):
            locks = WorkerLocks(folder)
            locks.hold(name)
            if other.ended({name}):
                wrong.append(name)
            locks.release()

    checkers = [threading.Thread(target=check) for _ in range(2)]
    runners = [threading.Thread(target=run, args=(str(i),)) for i in range(4)]
    for thread in (*checkers, *runners):
        thread.start()
    for thread in runners:
        thread.join()
    done.set()
    for thread in checkers:
        thread.join()
    assert wrong == []

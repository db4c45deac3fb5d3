"""Programs that end without closing their producer: the records that were not written are reported, once."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGINNING = """
import asyncio, logging, os, sys, threading
from kinstream import Batching, Credentials, Producer, blocking

OPTIONS = dict(endpoint_url="http://127.0.0.1:1", region="us-east-1", credentials=Credentials("local", "local"))

async def put():
    global producer
    producer = Producer("orders", batch=Batching(linger=60), **OPTIONS)
    for number in range(70):
        await producer.put(b"%d" % number, "key")

"""


def said_by(program: str) -> list[str]:
    """Run a program, and return the lines of its stderr."""
    ended = subprocess.run(
        [sys.executable, "-W", "default", "-c", BEGINNING + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr.splitlines()


def reports(lines: list[str]) -> list[str]:
    return [line for line in lines if "the producer was never closed" in line]


def test_a_loop_that_is_never_closed() -> None:
    lines = said_by("loop = asyncio.new_event_loop(); loop.run_until_complete(put())")
    (report,) = reports(lines)
    assert "70 records were not written when the process ended" in report
    assert any("ResourceWarning: unclosed Producer('orders'): 70 records" in line for line in lines)


def test_a_loop_in_a_thread_that_ends_with_the_process() -> None:
    lines = said_by(
        "loop = asyncio.new_event_loop()\n"
        "threading.Thread(target=loop.run_forever, daemon=True).start()\n"
        "asyncio.run_coroutine_threadsafe(put(), loop).result()\n"
    )
    (report,) = reports(lines)
    assert "70 records" in report


def test_a_producer_that_is_collected_after_its_loop_was_closed() -> None:
    lines = said_by(
        "import gc\n"
        "loop = asyncio.new_event_loop(); loop.run_until_complete(put()); loop.close()\n"
        "del producer; gc.collect(); print('collected', file=sys.stderr)"
    )
    (report,) = reports(lines)
    assert "70 records were not written before it was garbage-collected" in report
    assert lines.index(report) < lines.index("collected")


@pytest.mark.skipif(not hasattr(sys, "getswitchinterval") or sys.platform == "win32", reason="needs fork")
def test_a_forked_child_does_not_report_the_records_of_its_parent() -> None:
    lines = said_by(
        "loop = asyncio.new_event_loop(); loop.run_until_complete(put())\n"
        "child = os.fork()\n"
        "if child == 0: sys.exit()\n"
        "os.waitpid(child, 0)\n"
    )
    assert len(reports(lines)) == 1


def test_blocking_producers_are_drained_and_not_reported_as_left_open() -> None:
    lines = said_by(
        "import kinstream.blocking.producer\n"
        "kinstream.blocking.producer.EXIT_DRAIN = 0.2\n"
        "producer = blocking.Producer('orders', **OPTIONS)\n"
        "producer.put(b'data', 'key')\n"
    )
    assert reports(lines) == []
    assert any("was never closed" in line for line in lines), lines


def test_records_of_a_blocking_producer_whose_shared_client_is_closed_first() -> None:
    lines = said_by(
        "client = blocking.Client(**OPTIONS)\n"
        "producer = blocking.Producer('orders', client=client)\n"
        "deliveries = producer.put_many([(b'data', 'key')] * 70)\n"
        "client.close()\n"
        "assert deliveries.done\n"
    )
    (report,) = reports(lines)
    assert "70 records" in report

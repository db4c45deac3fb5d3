"""How callbacks run: on the object's own thread, one at a time, each of them, whatever the others do."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.doubles.heard import Heard
from tests.doubles.server import Peer, http_answer, serving
from tests.doubles.streams import Place, local_stream

from kinstream import ClosedError, Record, callbacks

RECORD = Record("data", "key")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with local_stream() as place:
        yield place


@pytest.fixture
def producer(place: Place) -> Iterator[callbacks.Producer]:
    with callbacks.Producer(*place.account, endpoint_url=place.url) as producer:
        yield producer


@pytest.fixture
def consumer(place: Place) -> Iterator[callbacks.Consumer]:
    with callbacks.Consumer(*place.account, endpoint_url=place.url) as consumer:
        yield consumer


def test_callbacks_run_on_one_thread_one_at_a_time(producer: callbacks.Producer) -> None:
    heard = Heard()
    inside = 0
    most = 0

    def callback(*outcome: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.001)
        inside -= 1
        heard(*outcome)

    def ask() -> None:
        for n in range(20):
            producer.put_record(RECORD if n % 4 else cast("Record", None), callback)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [heard.wait()[0] for _ in range(80)]
    assert sum(error is None for error in errors) == 60
    assert most == 1
    assert len(set(heard.threads)) == 1
    assert heard.threads[0] not in {threading.current_thread(), *threads}


def test_method_returns_before_its_callback_is_called(producer: callbacks.Producer) -> None:
    returned = threading.Event()
    heard = Heard()

    def callback(error: Any, _: Any) -> None:
        heard(returned.wait(10))

    producer.put_record(cast("Record", None), callback)
    returned.set()
    assert heard.wait() == (True,)


def test_callback_may_call_further_methods(producer: callbacks.Producer, consumer: callbacks.Consumer) -> None:
    heard = Heard()

    def put_again(error: Any, result: Any) -> None:
        producer.put_records([RECORD, RECORD], read_it)

    def read_it(error: Any, failed: int, results: Any) -> None:
        options = {"starting_sequence_number": results[1].sequence_number}
        consumer.get_shard_iterator(results[1].shard_id, "AT_SEQUENCE_NUMBER", options, take)

    def take(error: Any, shard_iterator: Any) -> None:
        consumer.get_records({"shard_iterator": shard_iterator, "limit": 1}, heard)

    producer.put_record(RECORD, put_again)
    error, (record,), _, _ = heard.wait()
    assert error is None
    assert record.data == "data"


@pytest.mark.parametrize("raised", [ValueError("mine"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_callback_that_raises_is_logged_and_affects_no_other_call(
    raised: BaseException, producer: callbacks.Producer, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def bad(*_: Any) -> None:
        raise raised

    for _ in range(3):
        producer.put_record(RECORD, bad)
        producer.put_record(cast("Record", None), bad)
        producer.put_record(RECORD, heard)
    assert [heard.wait()[0] for _ in range(3)] == [None] * 3
    producer.close()
    logged = [record for record in caplog.records if record.exc_info is not None]
    assert len(logged) == 6
    assert all(record.exc_info is not None and record.exc_info[1] is raised for record in logged)
    assert all(record.levelno == logging.ERROR and "put_record" in record.getMessage() for record in logged)


def test_callback_with_the_wrong_number_of_arguments_is_logged(
    producer: callbacks.Producer, caplog: pytest.LogCaptureFixture
) -> None:
    producer.put_record(RECORD, lambda: None)  # type: ignore[arg-type, misc]
    producer.close()
    assert "put_record raised" in caplog.text


def test_callback_that_blocks_does_not_make_other_calls_fail(producer: callbacks.Producer) -> None:
    heard = Heard()
    free = threading.Event()

    def block(*outcome: Any) -> None:
        free.wait(0.4)  # longer than the grace that a deadline gives
        heard(*outcome)

    for _ in range(3):
        producer.put_record(RECORD, block)
    for _ in range(20):
        producer.put_record(RECORD, heard)
    assert [heard.wait()[0] for _ in range(23)] == [None] * 23


def test_close_waits_for_every_callback(place: Place) -> None:
    heard = Heard()

    def slow(*outcome: Any) -> None:
        time.sleep(0.02)
        heard(*outcome)

    producer = callbacks.Producer(*place.account, endpoint_url=place.url)
    for _ in range(10):
        producer.put_record(RECORD, slow)
    producer.put_record(cast("Record", None), slow)
    producer.close()
    assert len(heard.threads) == 11
    assert not heard.threads[0].is_alive()
    producer.close()


def test_close_of_two_threads_waits_in_both(place: Place) -> None:
    heard = Heard()
    producer = callbacks.Producer(*place.account, endpoint_url=place.url)

    def slow(*outcome: Any) -> None:
        time.sleep(0.1)
        heard(*outcome)

    producer.put_record(RECORD, slow)
    seen = []

    def close() -> None:
        producer.close()
        seen.append(len(heard.threads))

    threads = [threading.Thread(target=close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1]


def test_leaving_the_with_block_closes(place: Place) -> None:
    heard = Heard()
    with callbacks.Producer(*place.account, endpoint_url=place.url) as producer:
        assert isinstance(producer, callbacks.Producer)
        producer.put_record(RECORD, heard)
    assert len(heard.threads) == 1
    producer.put_record(RECORD, heard)
    assert heard.wait()[0] is None
    assert isinstance(heard.wait()[0], ClosedError)


def test_close_from_a_callback_does_not_wait_for_itself(place: Place) -> None:
    heard = Heard()
    producer = callbacks.Producer(*place.account, endpoint_url=place.url)

    def close(*outcome: Any) -> None:
        producer.close()
        producer.put_record(RECORD, heard)
        heard(*outcome)

    producer.put_record(RECORD, close)
    for _ in range(5):
        producer.put_record(RECORD, heard)
    producer.close()  # waits, though a callback closed first
    errors = [heard.wait()[0] for _ in range(7)]
    assert sum(error is None for error in errors) + sum(isinstance(error, ClosedError) for error in errors) == 7
    assert not heard.threads[0].is_alive()


def test_callbacks_that_close_each_others_objects_do_not_wait_for_each_other(place: Place) -> None:
    both = threading.Barrier(2)
    producer = callbacks.Producer(*place.account, endpoint_url=place.url)
    consumer = callbacks.Consumer(*place.account, endpoint_url=place.url)
    heard = Heard()

    def close_all(*_: Any) -> None:
        both.wait(10)
        producer.close()
        consumer.close()
        heard()

    producer.put_record(RECORD, close_all)
    consumer.get_shards(close_all)
    producer.close()
    consumer.close()
    assert len(heard.threads) == 2


def test_callback_that_asks_again_and_again_does_not_keep_close_from_ending(place: Place) -> None:
    producer = callbacks.Producer(*place.account, endpoint_url=place.url)
    heard = Heard()
    refused = 0

    def again(error: Any, _: Any) -> None:
        nonlocal refused
        refused += error is not None
        if refused < 50:
            producer.put_record(RECORD, again)
        heard()

    producer.put_record(RECORD, again)
    heard.wait()
    producer.close()
    while refused < 50:
        heard.wait()


def test_close_without_any_call_is_fine(place: Place) -> None:
    callbacks.Producer(*place.account, endpoint_url=place.url).close()
    callbacks.Producer("", "", "", "").close()


def test_callbacks_after_close_run_one_at_a_time_too(place: Place) -> None:
    producer = callbacks.Producer(*place.account, endpoint_url=place.url)
    producer.close()
    heard = Heard()
    inside = threading.Semaphore(1)

    def callback(*outcome: Any) -> None:
        alone = inside.acquire(blocking=False)
        time.sleep(0.001)
        producer.close()  # must not wait for this very callback
        if alone:
            inside.release()
        heard(alone, *outcome)

    for _ in range(20):
        producer.put_record(RECORD, callback)
    outcomes = [heard.wait() for _ in range(20)]
    assert all(alone and isinstance(error, ClosedError) for alone, error, _ in outcomes)


def test_nothing_is_lost_between_asking_and_closing(place: Place) -> None:
    for _ in range(20):
        producer = callbacks.Producer(*place.account, endpoint_url=place.url)
        heard = Heard()
        asked = threading.Event()

        def ask(producer: callbacks.Producer = producer, heard: Heard = heard, asked: threading.Event = asked) -> None:
            for n in range(30):
                producer.put_record(RECORD if n % 10 == 0 else cast("Record", None), heard)
                asked.set()

        thread = threading.Thread(target=ask)
        thread.start()
        asked.wait()
        producer.close()
        thread.join()
        for _ in range(30):
            heard.wait()
        assert heard.quiet


def test_forgotten_object_ends_its_thread(place: Place) -> None:
    heard = Heard()
    producer = callbacks.Producer(*place.account, endpoint_url=place.url)
    producer.put_record(RECORD, heard)
    heard.wait()
    gone = weakref.ref(producer)
    del producer
    while gone() is not None:
        gc.collect()
        time.sleep(0.001)
    heard.threads[0].join(10)
    assert not heard.threads[0].is_alive()


def test_object_that_is_forgotten_while_it_works_still_calls_back(place: Place) -> None:
    heard = Heard()
    for _ in range(3):
        callbacks.Producer(*place.account, endpoint_url=place.url).put_record(RECORD, heard)
        gc.collect()
    assert [heard.wait()[0] for _ in range(3)] == [None] * 3


def test_debug_output_has_no_data_and_no_secret(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    with (
        callbacks.Producer(*place.account[:2], "canary-secret", place.stream, endpoint_url=place.url) as wrong,
        callbacks.Producer(*place.account, endpoint_url=place.url) as right,
    ):
        for producer in (wrong, right):
            producer.set_debug(True)
            producer.put_record(Record("canary-data", "canary-key"), heard)
            producer.put_records([Record({"canary": object()}, "key")], heard)
    text = caplog.text
    assert "put_record: REQUEST_FAILED" in text
    assert "put_record: done" in text
    assert "put_records: LIBRARY_ERROR" in text
    assert "canary" not in text


FORKS = ["-W", "ignore:This process:DeprecationWarning"]  # since Python 3.12, for each fork of a process with threads
PROGRAM = """
import sys
from kinstream import Record
from kinstream.callbacks import Producer

producer = Producer("us-east-1", "local", "local", "events"{endpoint})
{code}
"""


def run(place: Place, code: str, *, by_environment: bool = False) -> subprocess.CompletedProcess[str]:
    endpoint = "" if by_environment else f", endpoint_url={place.url!r}"
    env = {**os.environ, "AWS_ENDPOINT_URL_KINESIS": place.url} if by_environment else dict(os.environ)
    command = [sys.executable, "-W", "error", *FORKS, "-c", PROGRAM.format(endpoint=endpoint, code=code)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("by_environment", [False, True])
def test_exit_of_the_process_waits_for_calls_in_flight(place: Place, by_environment: bool) -> None:
    code = """
for _ in range(3):
    producer.put_record(Record("x", "key"), lambda error, result: print(error or result.shard_id))
producer.put_record(None, lambda error, result: print(error.type))
"""
    ended = run(place, code, by_environment=by_environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(ended.stdout.split()) == ["LIBRARY_ERROR"] + ["shardId-000000000000"] * 3


def test_exit_of_the_process_is_not_held_up_by_a_callback_that_never_returns(place: Place) -> None:
    code = """
import threading
import kinstream.callbacks.face
kinstream.callbacks.face.EXIT_DRAIN = 0.2
producer.put_record(None, lambda error, result: (print("called", flush=True), threading.Event().wait()))
"""
    ended = run(place, code)
    assert (ended.returncode, ended.stdout) == (0, "called\n")


async def test_exit_of_the_process_reports_calls_that_it_did_not_wait_for(tmp_path: Path) -> None:
    arrived = tmp_path / "arrived"

    async def silent(peer: Peer) -> None:
        await peer.request()
        arrived.touch()
        await asyncio.sleep(60)

    async with serving(silent) as server:
        code = f"""
import pathlib, time
import kinstream.callbacks.face
kinstream.callbacks.face.EXIT_DRAIN = 0.2
producer.put_record(Record("x", "key"), lambda error, result: print(type(error).__name__, error.maybe_written, result))
while not pathlib.Path({str(arrived)!r}).exists():
    time.sleep(0.01)
"""
        ended = await asyncio.to_thread(run, Place(f"http://127.0.0.1:{server.port}"), code)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "ClosedError True None\n"


@pytest.mark.parametrize(("closed", "told"), [("producer.close()", False), ("", True)])
def test_what_is_asked_when_no_thread_starts_any_more_raises_nothing(place: Place, closed: str, told: bool) -> None:
    code = f"""
import atexit
import threading
def refuse(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")
{closed}
def at_the_end():
    threading.Thread.start = refuse  # as from Python 3.12 on
    producer.put_record(Record("x", "key"), print)
atexit.register(at_the_end)
"""
    ended = run(place, code)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ("no thread is left" in ended.stderr) is told
    assert "Traceback" not in ended.stderr


def test_forked_process_gets_an_error_that_advises_an_object_of_its_own(place: Place) -> None:
    code = """
import os, threading
done = threading.Event()
held = threading.Event()
producer.put_record(None, lambda *_: (done.set(), held.wait(10)))
done.wait()
child = os.fork()
if child == 0:
    told = threading.Event()
    producer.put_record(Record("x", "key"), lambda error, result: (print(error.type, error.details, flush=True), told.set()))
    assert told.wait(10)
    producer.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
held.set()
"""
    ended = run(place, code)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("LIBRARY_ERROR")
    assert "fork" in ended.stdout


async def test_calls_in_flight_do_not_wait_for_each_other() -> None:
    waiting = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            waiting.set()
            await last.wait()
        await peer.send(http_answer(b'{"SequenceNumber":"%d","ShardId":"s"}' % peer.number))

    last = asyncio.Event()
    async with serving(script) as server:
        url = f"http://127.0.0.1:{server.port}"
        producer = callbacks.Producer("us-east-1", "local", "local", "events", endpoint_url=url)
        first, second = Heard(), Heard()
        producer.put_record(RECORD, first)
        await waiting.wait()
        producer.put_record(RECORD, second)
        assert (await second.arrive())[1].sequence_number == "1"
        assert first.quiet
        last.set()
        assert (await first.arrive())[1].sequence_number == "0"
        await asyncio.to_thread(producer.close)

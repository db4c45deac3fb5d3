"""The blocking face: one implementation for any number of threads, and nothing left behind."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.doubles.streams import Place, local_stream
from tests.doubles.transport import ScriptedTransport, Sent, answer

import kinstream
from kinstream import Batching, ClosedError, ConfigError, Credentials, Record, UsageError, blocking
from kinstream.aws.transport import Response

pytestmark = [pytest.mark.enable_socket, pytest.mark.usefixtures("interrupts")]

WRITTEN = answer({"SequenceNumber": "1", "ShardId": "shardId-000000000000"})
RECORD = Record(b"data", "key")
OPTIONS: dict[str, Any] = {
    "region": "us-east-1",
    "credentials": Credentials("key", "secret"),
    "endpoint_url": "http://127.0.0.1:1",
}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with local_stream() as place:
        yield place


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so; the test's own time limit ends a wait in vain."""
    while not condition():
        time.sleep(0.001)


@pytest.mark.parametrize("name", ["Producer", "Consumer", "Client"])
def test_every_public_method_of_asyncio_is_there_with_the_same_arguments(name: str) -> None:
    ours, theirs = getattr(blocking, name), getattr(kinstream, name)
    asked = {
        method: inspect.signature(function)
        for method, function in inspect.getmembers(theirs, inspect.iscoroutinefunction)
        if not method.startswith("_") and method not in ("send", "subscribe")  # these are for the library's own stages
    }
    assert len(asked) >= 2
    for method, signature in asked.items():
        given = inspect.signature(getattr(ours, method))
        if method == "put_and_wait":  # a task has asyncio.timeout
            assert given.parameters["timeout"].default is None
            given = given.replace(parameters=[each for each in given.parameters.values() if each.name != "timeout"])
        assert str(given) == str(signature)


@pytest.mark.parametrize("name", ["Producer", "Consumer"])
def test_constructors_take_what_those_of_asyncio_take(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (blocking, kinstream))
    assert [str(parameter) for parameter in ours.values()] == [str(parameter) for parameter in theirs.values()]


def test_many_threads_share_one_object(place: Place) -> None:
    with (
        blocking.Producer(place.stream, **place.options) as producer,
        ThreadPoolExecutor(16) as pool,
    ):
        results = list(pool.map(lambda n: producer.put_record(Record(n, "key")), range(200)))
        assert len(threads_named("kinstream-producer")) == 1
    assert len({result.sequence_number for result in results}) == 200
    assert threads_named("kinstream-producer") == []


def test_encoders_and_iterables_run_in_the_callers_thread() -> None:
    threads: set[threading.Thread] = set()

    def encoder(data: Any) -> bytes:
        threads.add(threading.current_thread())
        return b"encoded"

    def records() -> Iterator[Record]:
        threads.add(threading.current_thread())
        yield Record("data", "key", encoder=encoder)

    several = answer({"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1", "ShardId": "s"}]})
    with blocking.Producer("events", transport=ScriptedTransport(WRITTEN, several), **OPTIONS) as producer:
        producer.put_record(Record("data", "key", encoder=encoder))
        producer.put_records(records())
    assert threads == {threading.current_thread()}


def test_shared_client_has_one_thread_and_stays_open(place: Place) -> None:
    with blocking.Client(**place.options) as client:
        with (
            blocking.Producer(place.stream, client=client) as producer,
            blocking.Consumer(place.stream, client=client) as consumer,
        ):
            producer.put_record(RECORD)
            assert len(consumer.get_shards()) == 1
            assert not threads_named("kinstream-producer")
        assert client.call("ListStreams", {})["StreamNames"] == [place.stream]
        with pytest.raises(ClosedError):
            producer.put_record(RECORD)
    assert not threads_named("kinstream-client")


def test_client_that_is_shared_lives_as_long_as_who_shares_it(place: Place) -> None:
    producer = blocking.Producer(place.stream, client=blocking.Client(**place.options))
    gc.collect()
    assert producer.put_record(RECORD).shard_id is not None


def test_client_must_be_a_blocking_one() -> None:
    for face in (blocking.Producer, blocking.Consumer):
        with pytest.raises(ConfigError, match=r"kinstream\.blocking\.Client"):
            face("events", client=kinstream.Client(**OPTIONS))  # type: ignore[arg-type]


def test_result_that_comes_too_late_is_a_timeout_that_says_that_the_record_stays(place: Place) -> None:
    with blocking.Producer(place.stream, **place.options, batch=Batching(linger=60)) as producer:
        delivery, deliveries = producer.put(b"late", "k"), producer.put_many([(b"late", "k")])
        waits: list[Callable[[Any], object]] = [delivery.result, deliveries.results, deliveries.raise_for_failures]
        for wait in waits:
            with pytest.raises(TimeoutError, match=r"^not settled within 0 s: .* may be written later$"):
                wait(0)
            with pytest.raises(ConfigError, match=r"^timeout='soon': must be a number"):
                wait("soon")
    assert [delivery.result().shard_id] == [result.shard_id for result in deliveries.raise_for_failures()]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copy_of_a_delivery_is_the_delivery_and_pickling_it_is_refused(
    copied: Callable[[Any], Any], place: Place
) -> None:
    with blocking.Producer(place.stream, **place.options) as producer:
        delivery, deliveries = producer.put(b"copied", "k"), producer.put_many([(b"copied", "k")])
        assert copied(delivery) is delivery
        assert copied(deliveries) is deliveries
        with pytest.raises(
            TypeError, match=r"^kinstream\.blocking\.Delivery cannot be pickled, .*: pickle its result$"
        ):
            pickle.dumps(delivery)


def test_forgotten_object_ends_its_thread() -> None:
    producer = blocking.Producer("events", transport=ScriptedTransport(WRITTEN), **OPTIONS)
    producer.put_record(RECORD)
    (thread,) = threads_named("kinstream-producer")
    del producer
    gc.collect()
    until(lambda: not thread.is_alive())


def test_wrong_arguments_leave_no_thread() -> None:
    for wrong in ({"region": "a b"}, {"timeouts": 5}, {"wire_format": "xml"}):
        with pytest.raises(ConfigError):
            blocking.Producer("events", **wrong)
    assert threads_named("kinstream-producer") == []


def test_closed_is_closed() -> None:
    producer = blocking.Producer("events", transport=ScriptedTransport(WRITTEN), **OPTIONS)
    producer.close()
    producer.close()
    with pytest.raises(ClosedError):
        producer.put_record(RECORD)


def test_many_threads_may_close_one_object() -> None:
    for _ in range(20):
        producer = blocking.Producer("events", transport=ScriptedTransport(WRITTEN), **OPTIONS)
        producer.put_record(RECORD)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: producer.close(), range(4)))  # noqa: B023 - each pool ends before the next object


def test_close_ends_calls_of_other_threads_with_closed_error() -> None:
    asked = threading.Event()

    async def never(sent: Sent) -> Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    told: list[BaseException] = []
    producer = blocking.Producer("events", transport=ScriptedTransport(never), **OPTIONS)

    def put() -> None:
        try:
            producer.put_record(RECORD)
        except ClosedError as error:
            told.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    asked.wait()
    producer.close()
    thread.join()
    assert len(told) == 1


def test_interrupt_ends_the_call_and_its_work() -> None:
    asked, cancelled, interrupted = threading.Event(), threading.Event(), threading.Event()

    async def never(sent: Sent) -> Response:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    def interrupt() -> None:
        asked.wait()
        os.kill(os.getpid(), signal.SIGINT)
        while not interrupted.wait(1):  # CPython may miss one that comes just before it waits for a lock
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with blocking.Producer("events", transport=ScriptedTransport(never, WRITTEN), **OPTIONS) as producer:
        with pytest.raises(KeyboardInterrupt):
            producer.put_record(RECORD)
        interrupted.set()
        until(cancelled.is_set)
        assert producer.put_record(RECORD).sequence_number == "1"


def test_call_from_the_loops_own_thread_is_refused_not_a_deadlock() -> None:
    told: list[str] = []

    async def provider() -> Credentials:
        try:
            producer.put_record(RECORD)
        except UsageError as error:
            told.append(error.details)
        return Credentials("key", "secret")

    transport = ScriptedTransport(WRITTEN)
    with blocking.Producer("events", transport=transport, **{**OPTIONS, "credentials": provider}) as producer:
        assert producer.put_record(RECORD).sequence_number == "1"
    assert "event loop" in told[0]


async def test_call_within_another_event_loop_works_though_it_holds_that_loop_up() -> None:
    with blocking.Producer("events", transport=ScriptedTransport(WRITTEN), **OPTIONS) as producer:
        assert producer.put_record(RECORD).sequence_number == "1"


def test_asyncio_client_of_one_loop_is_refused_in_another() -> None:
    producer = kinstream.Producer("events", transport=ScriptedTransport(WRITTEN), **OPTIONS)
    asyncio.run(_put(producer))
    with pytest.raises(UsageError, match="another event loop"):
        asyncio.run(_put(producer))


async def _put(producer: kinstream.Producer) -> None:
    await producer.put_record(RECORD)


PROGRAM = """
import os, sys, warnings
from kinstream import Credentials, Record, UsageError, blocking
warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)  # Python 3.12 and later, about the fork of a test
place = dict(region="us-east-1", credentials=Credentials("local", "local"), endpoint_url={url!r})
{code}
"""


def run(place: Place, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", PROGRAM.format(url=place.url, code=code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_forked_process_gets_an_error_that_advises_an_object_of_its_own(place: Place) -> None:
    code = """
with blocking.Producer("events", **place) as producer:
    producer.put_record(Record(b"x", "key"))
    child = os.fork()
    if child == 0:
        try:
            producer.put_record(Record(b"x", "key"))
        except UsageError as error:
            print(error.details, flush=True)
            sys.exit(0)  # leaves the with block
        sys.exit(1)
    assert os.waitpid(child, 0)[1] == 0
    producer.put_record(Record(b"x", "key"))
"""
    ended = run(place, code)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "fork" in ended.stdout


def test_object_that_was_never_used_may_be_forked(place: Place) -> None:
    code = """
producer = blocking.Producer("events", **place)
child = os.fork()
os.write(1, producer.put_record(Record(b"x", "key")).shard_id.encode() + b"\\n")  # one call, so that no other text is between
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    ended = run(place, code)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "shardId-000000000000\n" * 2


def test_program_may_end_without_closing(place: Place) -> None:
    code = """
producer = blocking.Producer("events", **place)
print(producer.put_record(Record(b"x", "key")).shard_id)
"""
    ended = run(place, code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "shardId-000000000000\n", "")


def test_process_may_exit_right_after_its_last_response(place: Place) -> None:
    # Without the transport's pause at the end, about one such program in ten is aborted by CPython.
    code = """
import asyncio
from kinstream import Producer

async def main():
    async with Producer("events", **place) as producer:
        await producer.put_record(Record(b"x", "key"))

asyncio.run(main())
"""
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda _: run(place, code), range(12)))
    assert [(ended.returncode, ended.stderr) for ended in ends] == [(0, "")] * 12


def test_uvloop_serves_all_faces_where_a_program_chose_it(place: Place) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    code = """
import asyncio, uvloop
from kinstream import Producer, callbacks

async def main():
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"
    async with Producer("events", **place) as producer:
        print((await producer.put_record(Record(b"x", "key"))).shard_id)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
with blocking.Producer("events", **place) as producer:
    print(producer.put_record(Record(b"x", "key")).shard_id)
with callbacks.Producer("us-east-1", "local", "local", "events", endpoint_url=place["endpoint_url"]) as producer:
    producer.put_record(Record(b"x", "key"), lambda error, result: print(error or result.shard_id))
"""
    ended = run(place, code)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "shardId-000000000000\n" * 3


def test_no_event_loop_policy_is_ever_set(place: Place) -> None:
    code = """
import asyncio
warnings.filterwarnings("ignore", ".*get_event_loop_policy", DeprecationWarning)  # Python 3.14
before = type(asyncio.get_event_loop_policy())
import kinstream.callbacks
with blocking.Producer("events", **place) as producer:
    producer.put_record(Record(b"x", "key"))
assert type(asyncio.get_event_loop_policy()) is before
assert "uvloop" not in sys.modules
"""
    ended = run(place, code)
    assert (ended.returncode, ended.stderr) == (0, "")

"""SIGTERM ends reading before the next record, in every way to read; the current record is completed and checkpointed."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.doubles.streams import Place, local_stream

from kinstream import Consumer, Handling, Polling, SQLiteLeaseStore, blocking

RECORDS = 20
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with local_stream() as place:
        with blocking.Producer(place.stream, **place.options) as producer:
            producer.put_many((b"%d" % number, "key") for number in range(RECORDS)).results()
        yield place


@pytest.fixture(autouse=True)
def default_afterwards() -> Iterator[None]:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    yield
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def options_of(place: Place, **options: Any) -> dict[str, Any]:
    options = {
        "start": "TRIM_HORIZON",
        "handling": Handling(max_batch_records=5),
        "fetch": Polling(idle_interval=0.05),
    } | options
    return options | place.options


# The ways to read: each calls a function with each record's number, and returns when reading has ended.

Act = Callable[[int], None]


def blocking_records(place: Place, act: Act, options: dict[str, Any]) -> None:
    with blocking.Consumer(place.stream, **options) as consumer:
        for record in consumer:
            act(int(record.data))


def blocking_batches(place: Place, act: Act, options: dict[str, Any]) -> None:
    with blocking.Consumer(place.stream, **options) as consumer:
        for batch in consumer.batches():
            for record in batch:
                act(int(record.data))


def asyncio_records(place: Place, act: Act, options: dict[str, Any]) -> None:
    async def read() -> None:
        async with Consumer(place.stream, **options) as consumer:
            async for record in consumer:
                act(int(record.data))

    asyncio.run(read())


def asyncio_batches(place: Place, act: Act, options: dict[str, Any]) -> None:
    async def read() -> None:
        async with Consumer(place.stream, **options) as consumer:
            async for batch in consumer.batches():
                for record in batch:
                    act(int(record.data))

    asyncio.run(read())


def uvloop_records(place: Place, act: Act, options: dict[str, Any]) -> None:
    import uvloop

    async def read() -> None:
        async with Consumer(place.stream, **options) as consumer:
            async for record in consumer:
                act(int(record.data))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(read())


without_uvloop = pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
WAYS: list[Any] = [
    blocking_records,
    blocking_batches,
    asyncio_records,
    asyncio_batches,
    pytest.param(uvloop_records, marks=without_uvloop),
]


def terminate_at(last: int, seen: list[int]) -> Act:
    def act(number: int) -> None:
        seen.append(number)
        if number == last:
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "a second one has the default effect"
            seen.append(-1)

    return act


@pytest.mark.parametrize("way", WAYS)
def test_the_current_record_is_completed_and_no_further_one_is_delivered(
    way: Any, place: Place, tmp_path: Path
) -> None:
    batches = way in (blocking_batches, asyncio_batches)
    last = 4 if batches else 6
    seen: list[int] = []

    def options() -> dict[str, Any]:
        return options_of(place, application="app", lease_store=SQLiteLeaseStore(tmp_path / "checkpoints.db"))

    way(place, terminate_at(last, seen), options())
    assert seen == [*range(last + 1), -1]
    again: list[int] = []
    way(place, terminate_at(last + 5, again), options())
    assert again[0] == last + 1, "the current record was not checkpointed"


@pytest.mark.parametrize("way", WAYS)
def test_a_wait_for_the_next_record_ends(way: Any, place: Place) -> None:
    seen: list[int] = []

    def act(number: int) -> None:
        seen.append(number)
        if number == RECORDS - 1:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    way(place, act, options_of(place))
    assert seen == list(range(RECORDS))


@pytest.mark.parametrize("way", WAYS)
def test_a_wait_for_the_first_record_ends(way: Any, place: Place) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert before is signal.SIG_DFL
    way(place, lambda number: None, options_of(place, start="LATEST"))


@pytest.mark.parametrize("way", WAYS)
def test_reading_that_ends_by_itself_restores_the_default(way: Any, place: Place) -> None:
    seen: list[int] = []
    way(place, seen.append, options_of(place, until="now"))
    assert seen == list(range(RECORDS))


@pytest.mark.parametrize("way", WAYS)
def test_an_exception_in_the_loop_restores_the_default(way: Any, place: Place) -> None:
    def act(number: int) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        way(place, act, options_of(place))


@pytest.mark.parametrize("way", WAYS)
def test_an_applications_own_handler_is_left_alone(way: Any, place: Place) -> None:
    signals: list[int] = []

    def own(number: int, frame: object) -> None:
        signals.append(number)

    signal.signal(signal.SIGTERM, own)
    try:
        seen: list[int] = []

        def act(number: int) -> None:
            seen.append(number)
            assert signal.getsignal(signal.SIGTERM) is own
            if number == 3:
                signal.raise_signal(signal.SIGTERM)

        way(place, act, options_of(place, until="now"))
        assert (signals, seen) == ([signal.SIGTERM], list(range(RECORDS)))
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_handler_that_is_installed_in_the_meantime_stays(place: Place) -> None:
    def own(number: int, frame: object) -> None: ...

    def install(_: int) -> None:
        signal.signal(signal.SIGTERM, own)

    try:
        blocking_records(place, install, options_of(place, until="now"))
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_no_handler_is_installed_outside_the_main_thread(place: Place) -> None:
    found: list[Any] = []
    for way in (blocking_records, asyncio_records):
        reading = threading.Thread(
            target=way,
            args=(place, lambda number: found.append(signal.getsignal(signal.SIGTERM)), options_of(place, until="now")),
        )
        reading.start()
        reading.join()
    assert found == [signal.SIG_DFL] * 2 * RECORDS


def test_nested_loops_and_other_consumers_all_end(place: Place) -> None:
    seen: list[tuple[int, int]] = []
    with (
        blocking.Consumer(place.stream, **options_of(place)) as outer,
        blocking.Consumer(place.stream, **options_of(place)) as inner,
        blocking.Consumer(place.stream, **options_of(place)) as other,
    ):
        others = iter(other)
        next(others)
        for first in outer:
            for second in inner:
                seen.append((int(first.data), int(second.data)))
                if len(seen) == 3:
                    signal.raise_signal(signal.SIGTERM)
        assert seen == [(0, 0), (0, 1), (0, 2)]
        assert next(others, None) is None
        assert next(iter(other)).data == b"1", "a reading that begins after it is another one"


def test_the_handler_stays_until_the_last_of_several_readers_has_ended(place: Place) -> None:
    with (
        blocking.Consumer(place.stream, **options_of(place)) as first,
        blocking.Consumer(place.stream, **options_of(place)) as second,
    ):
        readers = [iter(first), iter(second)]
        for reader in readers:
            next(reader)
        readers.pop(0).close()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        del reader
        readers.clear()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_asyncio_iterator_that_is_given_up_restores_the_default(place: Place) -> None:
    async def read() -> None:
        async with Consumer(place.stream, **options_of(place)) as consumer:
            for begin in (consumer.__aiter__, consumer.batches):
                records: Any = begin()
                await anext(records)
                assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
                del records
                gc.collect()
                assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
                await asyncio.sleep(0.05)

    asyncio.run(read())


@pytest.mark.parametrize("style", ["blocking", "asyncio"])
def test_a_closed_consumer_whose_iterator_is_still_referenced_restores_the_default(style: str, place: Place) -> None:
    async def read() -> Any:
        consumer = Consumer(place.stream, **options_of(place))
        records = aiter(consumer)
        await anext(records)
        await consumer.close()
        return records

    kept: Any
    if style == "asyncio":
        kept = asyncio.run(read())
    else:
        consumer = blocking.Consumer(place.stream, **options_of(place))
        kept = iter(consumer)
        next(kept)
        consumer.close()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    del kept


def ended_by(place: Place, code: str) -> tuple[int, str]:
    beginning = f"""
import os, signal, sys, time
from kinstream import Credentials, blocking
consumer = blocking.Consumer({place.stream!r}, start="TRIM_HORIZON", endpoint_url={place.url!r}, region={place.region!r},
                             credentials=Credentials({place.key!r}, {place.secret!r}))
"""
    # Python 3.12 and later warn about each fork of a process with threads.
    program = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", beginning + code]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_second_sigterm_has_the_default_effect(place: Place) -> None:
    status, said = ended_by(
        place,
        """
for record in consumer:
    signal.raise_signal(signal.SIGTERM)
    print("once", flush=True)
    signal.raise_signal(signal.SIGTERM)
    print("twice", flush=True)
""",
    )
    assert (status, said) == (-signal.SIGTERM, "once\n")


def test_a_forked_child_is_ended_by_sigterm_and_its_parent_reads_on(place: Place) -> None:
    status, said = ended_by(
        place,
        """
seen = 0
for record in consumer:
    seen += 1
    if seen == 2:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
            os._exit(0)
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    if seen == 5:
        break
print("parent", seen)
consumer.close()
""",
    )
    assert (status, said) == (0, f"child {-signal.SIGTERM}\nparent 5\n")

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.produce.shapes import delivery, some

from kinstream.errors import ErrorType, NotFound
from kinstream.produce.delivery import Deliveries
from kinstream.produce.pending import Failure, PendingRecord, Unobserved
from kinstream.produce.unobserved import ERRORS_SHOWN, FIRST_KEPT, LAST_KEPT, UnobservedFailures
from kinstream.produce_errors import ProduceError
from kinstream.record import PutResult


def fail(one: PendingRecord, unobserved: UnobservedFailures | None = None) -> None:
    one.attempts = 2
    failure = Failure("not written", NotFound("no stream"))
    if unobserved is None:
        one.outcome = failure
    else:
        fail_unobserved([one], failure, unobserved)


def fail_unobserved(deliveries: list[PendingRecord], failure: Failure, unobserved: UnobservedFailures) -> None:
    own = Unobserved(failure, unobserved)
    for number, one in enumerate(deliveries, 1):
        one.outcome = own
        unobserved.add(failure, 1)
        unobserved.keep(one, failure, len(deliveries) - number)


async def test_a_delivery_can_be_awaited_by_many_and_often() -> None:
    one = delivery()

    async def wait() -> PutResult:
        return await one

    tasks = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not one.done
    one.outcome = PutResult("shard-0", "1")
    one.wake()
    assert {(await task).sequence_number for task in tasks} == {"1"}
    assert (await one).shard_id == one.result().shard_id == "shard-0"


async def test_cancelled_waiter_is_removed_and_the_record_and_other_waiters_continue() -> None:
    one = delivery()

    async def wait() -> PutResult:
        return await one

    first, second, third = (asyncio.create_task(wait()) for _ in range(3))
    await asyncio.sleep(0)
    for task in (first, third):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    one.outcome = PutResult("shard-0", "1")
    one.wake()
    assert (await second).sequence_number == "1"
    assert one.waiter is None


def test_a_result_before_the_end_is_an_error_of_the_callers() -> None:
    with pytest.raises(asyncio.InvalidStateError):
        delivery().result()


async def test_a_failure_is_raised_with_its_record_and_its_cause() -> None:
    one = delivery("key", b"data")
    fail(one)
    with pytest.raises(ProduceError) as raised:
        await one
    error = raised.value
    assert (error.record.data, error.record.partition_key, error.attempts) == (b"data", "key", 2)
    assert error.type is ErrorType.REQUEST_FAILED
    again = pickle.loads(pickle.dumps(error))
    assert (again.record, again.attempts) == (error.record, 2)


async def test_many_are_awaited_together_in_their_order_with_failures_in_their_places() -> None:
    all_of_them = some(5)
    handle = Deliveries(all_of_them)
    assert (len(handle), handle.done) == (5, False)

    async def settle() -> None:
        for index in (3, 0, 4, 1, 2):
            await asyncio.sleep(0)
            one = all_of_them[index]
            if index == 2:
                fail(one)
            else:
                one.outcome = PutResult("shard-0", str(index))
            one.wake()

    settling = asyncio.create_task(settle())
    results = await handle
    await settling
    assert handle.done
    assert [getattr(result, "sequence_number", "failed") for result in results] == ["0", "1", "failed", "3", "4"]
    assert await Deliveries([]) == []


def test_failure_is_unobserved_until_a_caller_observes_it() -> None:
    unobserved = UnobservedFailures()
    all_of_them = some(ERRORS_SHOWN + 50)
    for one in all_of_them:
        fail(one, unobserved)
    assert (unobserved.count, len(unobserved.errors())) == (ERRORS_SHOWN + 50, ERRORS_SHOWN)
    for one in (all_of_them[0], all_of_them[0], all_of_them[-1]):
        with pytest.raises(ProduceError):
            one.result()
    assert (unobserved.count, len(unobserved.errors())) == (ERRORS_SHOWN + 48, ERRORS_SHOWN)


def test_unobserved_failures_hold_no_more_than_some_megabytes() -> None:
    unobserved = UnobservedFailures()
    for one in [delivery(data=bytes(2**20)) for _ in range(10)]:
        fail(one, unobserved)
    assert unobserved.count == 10
    assert len(unobserved.errors()) == 4


def test_a_delivery_shows_nothing_of_its_record() -> None:
    one = delivery("canary-key", b"canary-data")
    fail(one)
    assert "canary" not in repr(one) + repr(one.value()) + str(one.value()) + repr(Deliveries([one]))


def test_the_collector_has_nothing_to_do_with_deliveries() -> None:
    one = delivery()
    assert not gc.is_tracked(one)
    one.outcome = PutResult("shard-0", "1")
    assert not gc.is_tracked(one)


class _Held:
    """Something that a caller's frame holds."""


async def test_a_failure_that_was_raised_keeps_no_frame_of_its_caller() -> None:
    one = delivery()
    fail(one)
    held: list[weakref.ref[_Held]] = []

    async def ask(again: PendingRecord) -> None:
        something = _Held()
        held.append(weakref.ref(something))
        with pytest.raises(ProduceError) as awaited:
            await again
        with pytest.raises(ProduceError) as asked:
            again.result()
        assert awaited.value.record == asked.value.record
        assert isinstance(awaited.value.__cause__, NotFound)

    await ask(one)
    gc.collect()
    assert [ref() for ref in held] == [None]


def test_a_failure_that_was_raised_is_freed_with_its_delivery() -> None:
    """The error's traceback holds the caller's frame, which holds the delivery. The delivery must not hold the error."""
    unobserved = UnobservedFailures()
    cause = NotFound("no stream")

    def ask() -> None:
        one = delivery()
        fail_unobserved([one], Failure("not written", cause), unobserved)
        try:
            one.result()
        except ProduceError as error:
            held.append(weakref.ref(error))

    held: list[weakref.ref[ProduceError]] = []
    for _ in range(5):
        ask()
    gc.collect()
    assert [ref() for ref in held] == [None] * 5


def test_records_that_failed_together_share_their_failure() -> None:
    """100,000 records that fail at `close(timeout)` must not cost an error each, unless a caller asks for it."""
    unobserved = UnobservedFailures()
    all_of_them = some(FIRST_KEPT + 350)
    fail_unobserved(all_of_them, Failure("not written", NotFound("no stream")), unobserved)
    assert len({id(one.outcome) for one in all_of_them}) == FIRST_KEPT + LAST_KEPT + 1
    errors = [one.value() for one in all_of_them]
    assert len({id(one.outcome) for one in all_of_them}) == 1
    assert unobserved.count == 0
    assert [error.record.partition_key for error in errors if isinstance(error, ProduceError)] == [
        one.partition_key for one in all_of_them
    ]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copy_of_a_delivery_is_the_delivery(copied: Callable[[Any], Any]) -> None:
    one = delivery()
    for handle in (one, Deliveries([one])):
        assert copied(handle) is handle


def test_pickling_a_delivery_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^kinstream\.Delivery cannot be pickled, .*: pickle its result$"):
        pickle.dumps(delivery())

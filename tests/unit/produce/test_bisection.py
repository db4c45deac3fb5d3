"""Bisection of a refused request: one record is found, or all are refused after a few samples."""

from __future__ import annotations

import pytest
from tests.unit.produce.shapes import lane, some

from kinstream.produce.batch import Batch
from kinstream.produce.bisection import SAMPLES, Refusal, parts_to_retry, refused

REASON = "InvalidArgument: no"


def request(count: int) -> Batch:
    batch, one = Batch(), lane()
    batch.entries += some(count)
    batch.spans.append((one, 0, count))
    batch.lanes.add(one)
    return batch


def requests_until_settled(count: int, wrong: set[int]) -> tuple[set[int], int]:
    """Return the indexes of the records that are refused in the end, and the number of requests."""
    whole = request(count)
    index = {id(entry): number for number, entry in enumerate(whole.entries)}
    waiting, found, sent = [whole], set[int](), 0
    while waiting:
        batch = waiting.pop(0)
        sent += 1
        numbers = {index[id(entry)] for entry in batch.entries}
        if not numbers & wrong:
            if batch.refusal is not None:
                batch.refusal.accepted()
        elif refused(batch, REASON):
            found |= numbers.union(*[{index[id(entry)] for entry in part.entries} for part in waiting])
            break
        else:
            parts = parts_to_retry(batch)
            found |= set() if parts else numbers
            waiting += parts
    return found, sent


def test_all_samples_refused_for_one_reason_show_that_every_record_would_be() -> None:
    of = Refusal(500)
    for _ in range(SAMPLES):
        assert not of.of_all("no")
        of.of_one("no")
    assert of.of_all("no")
    assert not of.of_all("something else")
    assert str(of).startswith("4 of 500 ")


def test_sample_that_was_accepted_or_refused_otherwise_shows_that_records_differ() -> None:
    written, differs = Refusal(500), Refusal(500)
    written.accepted()
    for n in range(2 * SAMPLES):
        written.of_one("no")
        differs.of_one("no" if n else "too large")
    assert not written.of_all("no")
    assert not differs.of_all("no")


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 500])
def test_one_wrong_record_is_found_wherever_it_is(count: int) -> None:
    for wrong in {0, count // 2, count - 1, count // 3}:
        found, sent = requests_until_settled(count, {wrong})
        assert found == {wrong}
        assert sent <= 2 * count.bit_length() + 2 * SAMPLES + 2


def test_some_wrong_records_are_found_and_no_others() -> None:
    wrong = {0, 3, 4, 250, 499}
    assert requests_until_settled(500, wrong)[0] == wrong


def test_records_that_are_all_wrong_take_no_more_requests_than_samples() -> None:
    found, sent = requests_until_settled(500, set(range(500)))
    assert found == set(range(500))
    assert sent == 1 + SAMPLES


def test_small_request_is_halved_without_samples() -> None:
    parts = parts_to_retry(request(2 * SAMPLES))
    assert [len(part.entries) for part in parts] == [SAMPLES, SAMPLES]
    assert all(part.refusal is None for part in parts)


def test_part_of_a_sampled_request_is_halved() -> None:
    batch = request(100)
    batch.refusal = Refusal(500)
    parts = parts_to_retry(batch)
    assert [len(part.entries) for part in parts] == [50, 50]
    assert all(part.refusal is batch.refusal for part in parts)

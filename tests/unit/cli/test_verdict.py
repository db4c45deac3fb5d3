"""The verdict finds every way in which records can go wrong."""

import pytest

from kinstream.cli.demo.flights import Event
from kinstream.cli.demo.verdict import judge

SENT = [Event(f"key-{n % 3}", b"event %d" % n) for n in range(9)]


def test_all_that_was_sent_and_came_back_once_in_order_is_good() -> None:
    verdict = judge(SENT, 9, SENT)
    assert verdict.good
    assert str(verdict) == "9 written, 9 read, 0 lost, 0 duplicated, order per key kept"


def test_order_across_keys_is_free() -> None:
    assert judge(SENT, 9, sorted(SENT, key=lambda event: event.key)).good


def test_a_lost_record_is_counted() -> None:
    verdict = judge(SENT, 9, SENT[:4] + SENT[5:])
    assert not verdict.good
    assert str(verdict) == "9 written, 8 read, 1 lost, 0 duplicated, order per key kept"


def test_a_duplicate_is_counted_and_does_not_break_the_order() -> None:
    verdict = judge(SENT, 9, [*SENT, SENT[0]])
    assert not verdict.good
    assert str(verdict) == "9 written, 10 read, 0 lost, 1 duplicated, order per key kept"


def test_a_duplicate_does_not_make_up_for_a_loss() -> None:
    verdict = judge(SENT, 9, [*SENT[:8], SENT[0]])
    assert (verdict.lost, verdict.duplicated, verdict.good) == (1, 1, False)


def test_two_records_of_a_key_that_changed_places_break_its_order() -> None:
    verdict = judge(SENT, 9, [SENT[3], *SENT[1:3], SENT[0], *SENT[4:]])
    assert not verdict.good
    assert str(verdict) == "9 written, 9 read, 0 lost, 0 duplicated, order broken for 1 key"


@pytest.mark.parametrize("changed", [Event("key-0", b"event 0!"), Event("key-1", b"event 0")])
def test_a_changed_record_is_lost_and_foreign(changed: Event) -> None:
    verdict = judge(SENT, 9, [changed, *SENT[1:]])
    assert not verdict.good
    assert str(verdict) == "9 written, 9 read, 1 lost, 0 duplicated, order per key kept, 1 never sent"


def test_an_event_that_kinesis_never_acknowledged_is_reported() -> None:
    verdict = judge(SENT, 8, SENT)
    assert not verdict.good
    assert str(verdict).startswith("8 of 9 written, 9 read, ")


def test_equal_events_are_refused() -> None:
    with pytest.raises(ValueError, match="same"):
        judge([SENT[0], SENT[0]], 2, [])


def test_duplicates_of_records_that_a_killed_worker_had_handled_are_counted_and_good() -> None:
    verdict = judge(SENT, 9, [*SENT, SENT[0], SENT[1]], repeatable={SENT[0], SENT[1]})
    assert (verdict.good, verdict.explained) == (True, 2)
    assert str(verdict) == "9 written, 11 read, 0 lost, 2 duplicated, order per key kept"


def test_another_duplicate_is_not_good() -> None:
    verdict = judge(SENT, 9, [*SENT, SENT[0], SENT[2]], repeatable={SENT[0], SENT[1]})
    assert (verdict.good, verdict.duplicated, verdict.explained) == (False, 2, 1)

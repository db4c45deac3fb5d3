"""The completed prefix of a shard, while several records are handled concurrently."""

from __future__ import annotations

from kinstream import Position, ReceivedRecord
from kinstream.consume.shard.progress import Progress, after


def record(number: int, index: int | None = None) -> ReceivedRecord[bytes]:
    return ReceivedRecord(b"", str(number), 0.0, "k", subsequence_number=index)


def test_position_after_a_record_has_its_index_as_in_the_kcl() -> None:
    assert after(record(7)) == Position.after("7", 0)
    assert after(record(7, 3)) == Position.after("7", 3)


def test_no_record_is_completed_at_first() -> None:
    progress = Progress()
    progress.begin(record(1))
    assert progress.position is None


def test_record_counts_only_after_all_earlier_ones_are_completed() -> None:
    progress = Progress()
    first, second, third = (progress.begin(record(number)) for number in (1, 2, 3))
    places = []
    for work in (second, first, third):
        progress.finish(work)
        places.append((progress.position, len(progress)))
    assert places == [(None, 3), (Position.after("2", 0), 1), (Position.after("3", 0), 0)]


def test_requested_checkpoint_completes_its_record_and_no_earlier_one() -> None:
    progress = Progress()
    records = [record(number) for number in (1, 2)]
    works = [progress.begin(one) for one in records]
    progress.finish_record(records[1])
    places = [progress.position]
    for work in works:
        progress.finish(work)
        places.append(progress.position)
    assert places == [None, Position.after("2", 0), Position.after("2", 0)]

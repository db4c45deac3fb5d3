"""The cursor of a shard: records before the start position, and the time up to which an idle shard is checkpointed."""

from __future__ import annotations

from kinstream import Position, ReceivedRecord
from kinstream.consume.deaggregate import Undeliverable
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import TRIM_HORIZON
from kinstream.consume.shard.cursor import IDLE_AFTER, Cursor
from kinstream.kpl.container import BadIndex

NOW = 1_000_000.0


def record(number: int) -> ReceivedRecord[bytes]:
    return ReceivedRecord(b"", str(number), NOW, "k")


def undeliverable(number: int) -> Undeliverable:
    return Undeliverable(record(number), BadIndex(5))


def begun(position: Position = TRIM_HORIZON) -> Cursor:
    cursor = Cursor(manual=False)
    cursor.begin(position, None, NOW)
    return cursor


def complete(cursor: Cursor, number: int) -> None:
    """Deliver and complete a record, and store the checkpoint."""
    cursor.delivered(record(number))
    cursor.progress.last = record(number)
    write = cursor.to_write
    assert write is not None
    cursor.stored(write)


def test_undeliverable_records_before_the_start_position_are_skipped() -> None:
    cursor = begun(Position.after("5"))
    assert cursor.skip(undeliverable(5)) is None
    later = undeliverable(6)
    assert cursor.skip(later) is later
    records = [record(5), record(6)]
    assert cursor.skip(records) == records[1:]
    assert cursor.skip(records) is records  # the start position has been passed


def test_idle_shard_is_checkpointed_up_to_the_last_page_without_lag() -> None:
    cursor = begun()
    cursor.received(Page([record(1)], 0))
    complete(cursor, 1)
    assert cursor.idle_to_write(drained=True) is None
    cursor.received(Page([], 0, as_of=NOW + IDLE_AFTER))
    assert cursor.idle_to_write(drained=False) is None
    assert cursor.idle_to_write(drained=True) == NOW + IDLE_AFTER
    cursor.idle_stored(NOW + IDLE_AFTER)
    assert cursor.idle_to_write(drained=True) is None


def test_shard_is_not_idle_if_later_records_were_read_and_will_never_be_delivered() -> None:
    cursor = begun()
    cursor.received(Page([record(1), record(2)], 0))
    complete(cursor, 1)
    cursor.received(Page([], 0, as_of=NOW + IDLE_AFTER))
    assert cursor.idle_to_write(drained=True) is None

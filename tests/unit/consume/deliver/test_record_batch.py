"""RecordBatch: a sequence of the records of one shard, which are checkpointed together."""

from __future__ import annotations

import pytest

from kinstream import ReceivedRecord
from kinstream.consume.deliver.record_batch import RecordBatch

SHARD = "shardId-000000000007"


class Checkpoints:
    """Origin of records that notes the sequence numbers of checkpointed records."""

    def __init__(self) -> None:
        self.shard_id = SHARD
        self.sequence_numbers: list[str] = []

    async def checkpoint(self, record: ReceivedRecord[bytes]) -> None:
        self.sequence_numbers.append(record.sequence_number)


def records(count: int, origin: Checkpoints | None = None) -> list[ReceivedRecord[bytes]]:
    return [ReceivedRecord(b"secret", str(number), 5.0, "k", origin=origin) for number in range(count)]


def test_batch_is_a_sequence_of_its_records_in_their_order() -> None:
    given = records(3)
    batch = RecordBatch(given, SHARD, 250)
    assert len(batch) == 3
    assert list(batch) == given
    assert (batch[0], batch[-1], batch[1:]) == (given[0], given[2], given[1:])
    assert given[1] in batch
    assert batch.index(given[1]) == 1
    with pytest.raises(IndexError):
        batch[3]


def test_batch_has_its_shard_and_its_lag() -> None:
    batch = RecordBatch(records(1), SHARD, 250)
    assert (batch.shard_id, batch.millis_behind_latest) == (SHARD, 250)
    assert RecordBatch(records(1), SHARD, None).millis_behind_latest is None


def test_representation_of_a_batch_has_its_size_and_its_shard_and_no_data() -> None:
    assert repr(RecordBatch(records(3), SHARD, 0)) == f"<RecordBatch of 3 records from {SHARD}>"


async def test_checkpoint_of_a_batch_is_the_checkpoint_of_its_last_record() -> None:
    origin = Checkpoints()
    await RecordBatch(records(3, origin), SHARD, 0).checkpoint()
    assert origin.sequence_numbers == ["2"]

"""Records: construction never raises, data is never shown, JSON is strict in both directions."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from kinstream import EncryptionType, PutRecordResult, ReceivedRecord, Record, UsageError
from kinstream.consume.shard.origin import Origin
from kinstream.record import Source, json_text, parse_json


@pytest.mark.parametrize("wrong", [None, "", 5, b"", [], object(), float("nan")])
def test_construction_never_raises(wrong: Any) -> None:
    Record(wrong, wrong, wrong, wrong, wrong)


def test_repr_shows_kind_and_size_of_the_data_never_the_data() -> None:
    received = ReceivedRecord(b"canary", "1", 1.5, "key")
    for shown in (
        repr(Record(b"canary", "key")),
        repr(Record("canary", "key", "7")),
        repr(received),
        repr(ReceivedRecord({"canary": 1}, "1", 1.5)),
    ):
        assert "canary" not in shown
    assert repr(Record(b"canary", "key")) == "Record(data=<6 bytes>, partition_key='key')"
    assert repr(Record("canary", "key", "7")).endswith("explicit_hash_key='7')")


def test_timestamp_is_whole_seconds() -> None:
    assert ReceivedRecord(b"", "1", 1.999).timestamp == 1


def test_partition_key_may_be_missing_and_encryption_is_none_then() -> None:
    record = ReceivedRecord(b"", "1", 1.0)
    assert (record.partition_key, record.encryption_type) == (None, EncryptionType.NONE)


def test_failed_write_has_no_encryption_type() -> None:
    assert PutRecordResult(error_code="InternalFailure").encryption_type is None
    assert PutRecordResult("1", "s").encryption_type is EncryptionType.NONE


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), {1, 2}, object(), {(1, 2): 3}, b"x"])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        json_text([value])


def test_json_is_compact_and_keeps_its_characters() -> None:
    assert json_text({"a": [1, "é🌍"]}) == '{"a":[1,"é🌍"]}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"canary",
        b"\xff",
        b"NaN",
        b"[Infinity]",
        b"[1,]",
        b"{'a':1}",
        b"1" * 5000,
        b"[" * 100_000,
        b'"\xed\xa0\x80"',
    ],
)
def test_what_is_no_json_is_a_value_error_without_the_data(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not JSON") as refused:
        parse_json(data)
    assert "canary" not in str(refused.value)
    assert refused.value.__context__ is None or "canary" not in repr(refused.value.__cause__)
    assert len(str(refused.value)) < 200


def test_received_record_parses_its_json() -> None:
    assert ReceivedRecord(b'{"a":1}', "1", 1.0).json() == {"a": 1}


def test_encryption_that_is_new_is_kept_by_its_name_and_anything_else_is_refused() -> None:
    assert EncryptionType("QUANTUM").value == "QUANTUM"
    with pytest.raises(ValueError, match="5"):
        EncryptionType(5)  # type: ignore[arg-type]


def test_record_of_get_records_has_no_checkpoint() -> None:
    with pytest.raises(UsageError, match="get_records"):
        ReceivedRecord(b"x", "1", 0.0).checkpoint()


def test_repr_of_a_user_record_has_its_place_in_the_aggregate() -> None:
    assert "sequence_number='1', subsequence_number=7," in repr(
        ReceivedRecord(b"x", "1", 0.0, "key", subsequence_number=7)
    )


def test_repr_of_a_result_says_where_the_record_is_or_why_it_is_not_written() -> None:
    assert repr(PutRecordResult("1", "shard-0")) == "PutRecordResult(shard_id='shard-0', sequence_number='1')"
    retried = PutRecordResult("1", "shard-0", attempts=3, maybe_duplicate=True)
    assert repr(retried).endswith("sequence_number='1', attempts=3, maybe_duplicate=True)")
    failed = PutRecordResult(error_code="InternalFailure", error_message="broken")
    assert repr(failed) == "PutRecordResult(error_code='InternalFailure', error_message='broken')"


def test_record_has_the_name_of_its_stream_and_keeps_it_when_it_is_pickled() -> None:
    record = ReceivedRecord(b"data", "1", 1.5, origin=Origin("orders:shardId-1", None, "orders"))
    for each in (record, pickle.loads(pickle.dumps(record))):
        assert (each.stream_name, each.shard_id) == ("orders", "orders:shardId-1")
    assert ReceivedRecord(b"data", "1", 1.5).stream_name == ""


def test_record_that_no_consumer_read_has_its_shard_and_no_checkpoint_and_can_be_pickled() -> None:
    record = ReceivedRecord(b"data", "1", 1.5, origin=Source("shardId-1", "orders"))
    for same in record, pickle.loads(pickle.dumps(record)):
        assert (same.shard_id, same.stream_name) == ("shardId-1", "orders")
        assert same == record
        with pytest.raises(UsageError, match="no Consumer read this record"):
            same.checkpoint()
    assert Source("shardId-1") == Origin("shardId-1")
    assert Source("shardId-1") != Source("shardId-2")
    assert hash(Source("shardId-1")) == hash(Origin("shardId-1"))

import pytest

from kinstream.local import constraints, requests
from kinstream.local.refusal import Refused


def told(request: object) -> str:
    with pytest.raises(Refused, match="ValidationException") as caught:
        constraints.check(request)  # type: ignore[arg-type]  # any request
    return caught.value.message


def test_request_within_its_constraints_passes() -> None:
    constraints.check(requests.PutRecord(stream_name="a", data=b"", partition_key="k"))
    constraints.check(requests.ListStreams())


def test_problem_is_told_as_aws_tells_it() -> None:
    assert told(requests.DescribeStream(stream_name="a", limit=0)) == (
        "1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1"
    )


def test_problems_are_told_together_in_the_models_order() -> None:
    text = told(requests.GetShardIterator(stream_name="!", shard_id=None, shard_iterator_type="X"))
    assert text.startswith("3 validation errors detected: Value '!' at 'streamName'")
    assert (
        text.index("'streamName'")
        < text.index("Value null at 'shardId'")
        < text.index("Value 'X' at 'shardIteratorType'")
    )


def test_member_of_a_structure_is_named_with_its_path() -> None:
    assert "at 'shardFilter.type'" in told(requests.ListShards(shard_filter=requests.ShardFilter(type="X")))


def test_ten_problems_at_most_are_told() -> None:
    refused = constraints.refusal([f"problem {n}" for n in range(50)])
    assert refused.message.startswith("50 validation errors detected: problem 0; ")
    assert refused.message.endswith("problem 9")


def test_long_values_are_cut_and_blobs_and_lists_not_shown() -> None:
    assert len(told(requests.ListStreams(exclusive_start_stream_name="x" * 10_000_000))) < 3000
    entries = [requests.PutRecordsEntry(data=b"secret", partition_key="k")] * 501
    text = told(requests.PutRecords(stream_name="a", records=entries))
    assert "secret" not in text
    assert "Member must have length less than or equal to 500" in text


def test_pattern_takes_ascii_digits_only() -> None:
    assert "explicitHashKey" in told(requests.PutRecord(data=b"", partition_key="k", explicit_hash_key="1٣"))

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream.local.operations import constraints, requests
from kinstream.local.state.request_error import RequestError


def error_message(request: object) -> str:
    with pytest.raises(RequestError, match="ValidationException") as caught:
        constraints.check(request)  # type: ignore[arg-type]  # any request
    return caught.value.message


def test_request_within_its_constraints_passes() -> None:
    constraints.check(requests.PutRecord(stream_name="a", data=b"", partition_key="k"))
    constraints.check(requests.ListStreams())
    constraints.check(requests.DescribeStream(stream_name="a", limit=10_000))
    constraints.check(requests.EnhancedMonitoring(stream_name="a", shard_level_metrics=["ALL"]))
    constraints.check(requests.RemoveTagsFromStream(stream_name="a", tag_keys=["ok"]))
    constraints.check(requests.AddTagsToStream(stream_name="a", tags={"key": ""}))


def test_violation_is_reported_with_the_wording_of_aws() -> None:
    assert error_message(requests.DescribeStream(stream_name="a", limit=0)) == (
        "1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1"
    )
    assert "Member must have value less than or equal to 10000" in error_message(requests.DescribeStream(limit=10_001))


def test_single_violation_of_a_blob_is_reported_with_its_size_and_without_its_data() -> None:
    assert constraints.violation_error("data", b"secret", "Member must be short").message == (
        "1 validation error detected: Value 'java.nio.HeapByteBuffer[pos=0 lim=6 cap=6]' at 'data' failed to satisfy "
        "constraint: Member must be short"
    )


def test_violations_are_reported_together_in_the_order_of_the_model() -> None:
    text = error_message(requests.GetShardIterator(stream_name="!", shard_id=None, shard_iterator_type="X"))
    assert text.startswith("3 validation errors detected: Value '!' at 'streamName'")
    assert (
        text.index("'streamName'")
        < text.index("Value null at 'shardId'")
        < text.index("Value 'X' at 'shardIteratorType'")
    )


def test_member_of_a_structure_is_named_with_its_path() -> None:
    assert "at 'shardFilter.type'" in error_message(requests.ListShards(shard_filter=requests.ShardFilter(type="X")))


def test_at_most_ten_violations_are_reported() -> None:
    refused = constraints.validation_error([f"problem {n}" for n in range(50)])
    assert refused.message.startswith("50 validation errors detected: problem 0; ")
    assert refused.message.endswith("problem 9")


def test_long_values_are_truncated_and_blobs_and_lists_are_not_repeated() -> None:
    assert len(error_message(requests.ListStreams(exclusive_start_stream_name="x" * 10_000_000))) < 3000
    entries = [requests.PutRecordsEntry(data=b"secret", partition_key="k")] * 501
    text = error_message(requests.PutRecords(stream_name="a", records=entries))
    assert "secret" not in text
    assert "Member must have length less than or equal to 500" in text


def test_pattern_matches_ascii_digits_only() -> None:
    assert "explicitHashKey" in error_message(requests.PutRecord(data=b"", partition_key="k", explicit_hash_key="1٣"))


def test_members_of_lists_and_maps_are_reported_with_all_their_rules() -> None:
    assert error_message(requests.RemoveTagsFromStream(stream_name="a", tag_keys=["ok", ""])) == (
        "1 validation error detected: Value '[ok, ]' at 'tagKeys' failed to satisfy constraint: Member must satisfy "
        "constraint: [Member must have length less than or equal to 128, "
        "Member must have length greater than or equal to 1]"
    )
    assert error_message(requests.AddTagsToStream(stream_name="a", tags={"": "x", "y": "z"})) == (
        "1 validation error detected: Value '{=x, y=z}' at 'tags' failed to satisfy constraint: Map keys must satisfy "
        "constraint: [Member must have length less than or equal to 128, "
        "Member must have length greater than or equal to 1]"
    )
    assert "Map value must satisfy constraint: [" in error_message(requests.AddTagsToStream(tags={"a": "x" * 257}))
    assert "[Member must satisfy enum value set: [IncomingBytes, " in error_message(
        requests.EnhancedMonitoring(shard_level_metrics=["X"])
    )


def test_long_lists_and_maps_are_truncated() -> None:
    assert len(error_message(requests.RemoveTagsFromStream(tag_keys=["x" * 1000] * 50))) < 3000
    assert len(error_message(requests.AddTagsToStream(tags={str(n): "x" * 1000 for n in range(200)}))) < 3000


ARN_PARTS = st.sampled_from(
    [
        "arn:aws", "-cn", ":kinesis:", "us-east-1", ":000000000000:", ":1:", "stream/", "channel/", "queue/", "orders",
        "/consumer/", "app", ":17", ":", " ", "\n", "x",
    ]
)  # fmt: skip


@given(st.lists(ARN_PARTS, max_size=14))
def test_linear_patterns_match_the_same_arns_as_the_model(parts: list[str]) -> None:
    text = "".join(["arn:aws", *parts])
    for alias in (requests.ResourceArn, requests.ConsumerArn):
        (pattern,) = (rule for rule in get_args(alias)[1:] if isinstance(rule, constraints.Pattern))
        slow = re.compile(pattern.pattern, re.ASCII).fullmatch(text)
        assert (pattern.violation(text) is None) == (slow is not None)


def test_linear_patterns_match_arns() -> None:
    stream = "arn:aws:kinesis:us-east-1:000000000000:stream/orders"
    constraints.check(requests.ResourceRequest(resource_arn=stream))
    constraints.check(requests.ResourceRequest(resource_arn=f"{stream}/consumer/app:17"))
    constraints.check(requests.ConsumerRequest(consumer_arn=f"{stream}/consumer/app:17"))
    assert "consumerARN" in error_message(requests.ConsumerRequest(consumer_arn=stream))

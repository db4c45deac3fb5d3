"""A stream's settings: retention, encryption, monitoring, mode, record size, and how records are spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

Make = Callable[..., str]
Refused = Callable[..., None]
Active = Callable[..., None]
Drain = Callable[..., list[dict[str, Any]]]

METRICS = [
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
]


def described(kinesis: Any, name: str) -> dict[str, Any]:
    """Return the response of DescribeStreamSummary. The members that DescribeStream has too must be equal."""
    summary = dict(kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"])
    description = kinesis.describe_stream(StreamName=name)["StreamDescription"]
    assert {key: summary.get(key) for key in description if key not in ("Shards", "HasMoreShards")} == {
        key: value for key, value in description.items() if key not in ("Shards", "HasMoreShards")
    }
    return summary


def arn(name: str) -> str:
    return f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}"


@pytest.fixture
def on_demand(kinesis: Any, names: Iterator[str], active: Active) -> Iterator[Callable[..., str]]:
    """Makes on-demand streams, which are deleted at the end: an account has but few."""
    made: list[str] = []

    def make(**options: Any) -> str:
        name = next(names)
        kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"}, **options)
        made.append(name)
        active(kinesis, name)
        return name

    yield make
    for name in made:
        kinesis.delete_stream(StreamName=name)


# Retention


def test_retention_is_raised_and_lowered(kinesis: Any, stream: Make, active: Active) -> None:
    name = stream()
    kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=8760)
    active(kinesis, name)
    assert described(kinesis, name)["RetentionPeriodHours"] == 8760
    kinesis.decrease_stream_retention_period(StreamARN=arn(name), RetentionPeriodHours=25)
    active(kinesis, name)
    assert described(kinesis, name)["RetentionPeriodHours"] == 25


def test_current_retention_is_accepted(kinesis: Any, stream: Make) -> None:
    name = stream()
    kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=24)
    kinesis.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=24)
    assert described(kinesis, name)["RetentionPeriodHours"] == 24


@pytest.mark.parametrize(
    ("way", "hours", "text"),
    [
        (
            "increase",
            23,
            "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.",
        ),
        (
            "decrease",
            0,
            "Minimum allowed retention period is 24 hours. Requested retention period (0 hours) is too short.",
        ),
        ("increase", 8761, "Requested retention period (8761 hours) is too long."),
        (
            "increase",
            30,
            "can not be shorter than existing retention period (48 hours). Use DecreaseRetentionPeriod API.",
        ),
        (
            "decrease",
            50,
            "can not be longer than existing retention period (48 hours). Use IncreaseRetentionPeriod API.",
        ),
    ],
)
def test_retention_out_of_range_is_refused(
    kinesis: Any, stream: Make, refused: Refused, active: Active, way: str, hours: int, text: str
) -> None:
    name = stream()
    kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=48)
    active(kinesis, name)
    call = getattr(kinesis, f"{way}_stream_retention_period")
    refused("InvalidArgumentException", text, call, StreamName=name, RetentionPeriodHours=hours)


# Encryption


def test_encryption_starts_and_stops(kinesis: Any, stream: Make, active: Active, drain: Drain) -> None:
    name = stream()
    key = "alias/aws/kinesis"
    types = []

    def put() -> None:
        types.append(kinesis.put_record(StreamName=name, Data=b"1", PartitionKey="k")["EncryptionType"])
        answer = kinesis.put_records(StreamName=name, Records=[{"Data": b"2", "PartitionKey": "k"}])
        types.append(answer["EncryptionType"])

    put()
    kinesis.start_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId=key)
    active(kinesis, name)
    summary = described(kinesis, name)
    assert (summary["EncryptionType"], summary["KeyId"]) == ("KMS", key)
    put()
    kinesis.stop_stream_encryption(StreamARN=arn(name), EncryptionType="KMS", KeyId=key)
    active(kinesis, name)
    summary = described(kinesis, name)
    assert (summary["EncryptionType"], summary.get("KeyId")) == ("NONE", None)
    put()
    assert types == ["NONE", "NONE", "KMS", "KMS", "NONE", "NONE"]
    assert [record["EncryptionType"] for record in drain(name)] == types


def test_encryption_begins_when_the_stream_is_active_again(slow: Any, names: Iterator[str], active: Active) -> None:
    name = next(names)
    slow.create_stream(StreamName=name, ShardCount=1)
    active(slow, name)
    slow.start_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId="alias/a")
    summary = described(slow, name)
    assert (summary["StreamStatus"], summary["EncryptionType"]) == ("UPDATING", "NONE")
    assert slow.put_record(StreamName=name, Data=b"x", PartitionKey="k")["EncryptionType"] == "NONE"
    with pytest.raises(slow.exceptions.ResourceInUseException):
        slow.stop_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId="alias/a")
    active(slow, name)


def test_encryption_type_none_is_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    arguments = {"StreamName": stream(), "EncryptionType": "NONE", "KeyId": "alias/a"}
    text = "KMS is the only valid EncryptionType"
    refused("InvalidArgumentException", text, kinesis.start_stream_encryption, **arguments)
    refused("InvalidArgumentException", text, kinesis.stop_stream_encryption, **arguments)


def test_twenty_sixth_key_in_a_day_is_refused(kinesis: Any, stream: Make, active: Active, refused: Refused) -> None:
    name = stream()
    for turn in range(25):
        kinesis.start_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId=f"alias/{turn}")
        active(kinesis, name)
    arguments = {"StreamName": name, "EncryptionType": "KMS", "KeyId": "alias/a"}
    refused("LimitExceededException", "25 StartStreamEncryption", kinesis.start_stream_encryption, **arguments)
    kinesis.stop_stream_encryption(**arguments)
    active(kinesis, name)


# Monitoring


def test_monitoring_is_enabled_and_disabled_metric_by_metric(kinesis: Any, stream: Make, active: Active) -> None:
    name = stream()
    answer = kinesis.enable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["OutgoingBytes", "IncomingBytes"])
    del answer["ResponseMetadata"]
    assert answer == {
        "StreamName": name,
        "StreamARN": arn(name),
        "CurrentShardLevelMetrics": [],
        "DesiredShardLevelMetrics": ["IncomingBytes", "OutgoingBytes"],
    }
    active(kinesis, name)
    assert described(kinesis, name)["EnhancedMonitoring"] == [{"ShardLevelMetrics": ["IncomingBytes", "OutgoingBytes"]}]
    answer = kinesis.disable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["OutgoingBytes"])
    assert answer["CurrentShardLevelMetrics"] == ["IncomingBytes", "OutgoingBytes"]
    assert answer["DesiredShardLevelMetrics"] == ["IncomingBytes"]
    active(kinesis, name)


def test_all_selects_every_metric(kinesis: Any, stream: Make, active: Active) -> None:
    name = stream()
    assert (
        kinesis.enable_enhanced_monitoring(StreamName=name, ShardLevelMetrics=["ALL"])["DesiredShardLevelMetrics"]
        == METRICS
    )
    active(kinesis, name)
    assert (
        kinesis.disable_enhanced_monitoring(StreamARN=arn(name), ShardLevelMetrics=["ALL"])["DesiredShardLevelMetrics"]
        == []
    )
    active(kinesis, name)
    assert described(kinesis, name)["EnhancedMonitoring"] == [{"ShardLevelMetrics": []}]


def test_unknown_metric_is_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    text = (
        "Value '[Ease]' at 'shardLevelMetrics' failed to satisfy constraint: Member must satisfy constraint: "
        "[Member must satisfy enum value set: [IncomingBytes, "
    )
    refused(
        "ValidationException",
        text,
        kinesis.enable_enhanced_monitoring,
        StreamName=stream(),
        ShardLevelMetrics=["Ease"],
    )


# Mode


def test_mode_is_changed_and_changed_back(kinesis: Any, stream: Make, active: Active, refused: Refused) -> None:
    name = stream(2)
    kinesis.update_stream_mode(StreamARN=arn(name), StreamModeDetails={"StreamMode": "ON_DEMAND"})
    active(kinesis, name)
    summary = described(kinesis, name)
    assert (summary["StreamModeDetails"], summary["OpenShardCount"]) == ({"StreamMode": "ON_DEMAND"}, 2)
    text = f"Request is invalid. Stream {name} under account 000000000000 is in On-Demand mode."
    arguments = {"StreamName": name, "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"}
    refused("ValidationException", text, kinesis.update_shard_count, **arguments)
    kinesis.update_stream_mode(StreamARN=arn(name), StreamModeDetails={"StreamMode": "PROVISIONED"})
    active(kinesis, name)
    summary = described(kinesis, name)
    assert (summary["StreamModeDetails"], summary["OpenShardCount"]) == ({"StreamMode": "PROVISIONED"}, 2)
    kinesis.update_shard_count(**arguments)
    active(kinesis, name)


def test_third_mode_in_a_day_is_refused(kinesis: Any, stream: Make, active: Active, refused: Refused) -> None:
    name = stream()
    for mode in ("ON_DEMAND", "PROVISIONED"):
        kinesis.update_stream_mode(StreamARN=arn(name), StreamModeDetails={"StreamMode": mode})
        active(kinesis, name)
    refused(
        "LimitExceededException",
        "2 UpdateStreamMode operations",
        kinesis.update_stream_mode,
        StreamARN=arn(name),
        StreamModeDetails={"StreamMode": "ON_DEMAND"},
    )


def test_shards_of_an_on_demand_stream_are_not_split_or_merged(kinesis: Any, on_demand: Make, refused: Refused) -> None:
    name = on_demand()
    text = "is in On-Demand mode"
    refused("ValidationException", text, kinesis.split_shard, StreamName=name, ShardToSplit="0", NewStartingHashKey="9")
    refused(
        "ValidationException",
        text,
        kinesis.merge_shards,
        StreamName=name,
        ShardToMerge="0",
        AdjacentShardToMerge="1",
    )


# Record size


def test_raised_record_size_accepts_records_of_ten_mebibytes(
    kinesis: Any, stream: Make, active: Active, drain: Drain, refused: Refused
) -> None:
    name = stream()
    largest = bytes(10 * 1024 * 1024 - 1)
    refused(
        "ValidationException",
        "Member must have length less than or equal to 1048576",
        kinesis.put_record,
        StreamName=name,
        Data=largest,
        PartitionKey="k",
    )
    kinesis.update_max_record_size(StreamARN=arn(name), MaxRecordSizeInKiB=10240)
    active(kinesis, name)
    assert described(kinesis, name)["MaxRecordSizeInKiB"] == 10240
    kinesis.put_record(StreamName=name, Data=largest, PartitionKey="k")
    kinesis.put_records(StreamName=name, Records=[{"Data": largest, "PartitionKey": "k"}])
    assert [len(record["Data"]) for record in drain(name)] == [len(largest)] * 2


def test_record_size_out_of_range_is_refused(kinesis: Any, stream: Make, refused: Refused) -> None:
    text = (
        "Value '10241' at 'maxRecordSizeInKiB' failed to satisfy constraint: "
        "Member must have value less than or equal to 10240"
    )
    refused(
        "ValidationException",
        text,
        kinesis.update_max_record_size,
        StreamARN=arn(stream()),
        MaxRecordSizeInKiB=10241,
    )


def test_record_size_needs_a_stream(kinesis: Any, refused: Refused) -> None:
    refused("InvalidArgumentException", "StreamARN", kinesis.update_max_record_size, MaxRecordSizeInKiB=2048)


# How records are spread. aiobotocore's botocore does not know it yet: these speak for themselves.


def test_records_without_keys_are_distributed_over_all_shards(
    raw: Any, names: Iterator[str], drain: Drain, kinesis: Any
) -> None:
    name = next(names)
    raw.json(
        "CreateStream",
        {"StreamName": name, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}, "RecordDistributionStrategy": "AUTO"},
    )
    summary = raw.json("DescribeStreamSummary", {"StreamName": name})["StreamDescriptionSummary"]
    assert summary["RecordDistributionStrategy"] == "AUTO"
    answer = raw.json("PutRecords", {"StreamName": name, "Records": [{"Data": "YQ=="}] * 40})
    assert answer["FailedRecordCount"] == 0
    raw.json("PutRecord", {"StreamName": name, "Data": "YQ==", "PartitionKey": "k", "ExplicitHashKey": "0"})
    counts, keys = [], []
    for index in range(4):
        position = {"StreamName": name, "ShardId": str(index), "ShardIteratorType": "TRIM_HORIZON"}
        iterator = raw.json("GetShardIterator", position)["ShardIterator"]
        records = raw.json("GetRecords", {"ShardIterator": iterator})["Records"]
        counts.append(len(records))
        keys += [record.get("PartitionKey") for record in records]
    assert all(count in (9, 10, 11) for count in counts)
    assert sorted(keys, key=str) == [None] * 40 + ["k"]
    kinesis.delete_stream(StreamName=name)


def test_distribution_strategy_changes_immediately(raw: Any, on_demand: Make) -> None:
    name = on_demand()
    put = json_body(name)
    text = "1 validation error detected: Value null at 'partitionKey' failed to satisfy constraint: Member must not be null"
    assert raw.refusal(raw.sign("PutRecord", put), put) == (400, "ValidationException", text)
    for strategy in ("AUTO", "USER_PARTITION_KEY"):
        raw.json(
            "UpdateStreamRecordDistributionStrategy",
            {"StreamARN": arn(name), "RecordDistributionStrategy": strategy},
        )
        summary = raw.json("DescribeStreamSummary", {"StreamName": name})["StreamDescriptionSummary"]
        assert (summary["RecordDistributionStrategy"], summary["StreamStatus"]) == (strategy, "ACTIVE")
        if strategy == "AUTO":
            raw.json("PutRecord", {"StreamName": name, "Data": "YQ=="})
    assert raw.refusal(raw.sign("PutRecord", put), put) == (400, "ValidationException", text)


def test_summary_names_the_distribution_strategy_of_every_stream(raw: Any, stream: Make, on_demand: Make) -> None:
    for name in (stream(), on_demand()):
        summary = raw.json("DescribeStreamSummary", {"StreamName": name})["StreamDescriptionSummary"]
        assert summary["RecordDistributionStrategy"] == "USER_PARTITION_KEY"


def test_provisioned_stream_cannot_distribute_records_itself(raw: Any, stream: Make) -> None:
    body = b'{"StreamARN": "%s", "RecordDistributionStrategy": "AUTO"}' % arn(stream()).encode()
    status, code, text = raw.refusal(raw.sign("UpdateStreamRecordDistributionStrategy", body), body)
    assert (status, code) == (400, "InvalidArgumentException")
    assert "ON_DEMAND" in text


def json_body(name: str) -> bytes:
    return b'{"StreamName": "%s", "Data": "YQ=="}' % name.encode()

"""Settings and pending changes survive a restart with the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.contract.servers.reach import Endpoint

from kinstream.local import Server

ARN = "arn:aws:kinesis:us-east-1:000000000000:stream"


def look(client: Any) -> dict[str, Any]:
    """Return all descriptions of streams, consumers and the account."""
    found: dict[str, Any] = {}
    for name in client.list_streams()["StreamNames"]:
        arn = f"{ARN}/{name}"
        consumers = client.list_stream_consumers(StreamARN=arn)["Consumers"]
        resources = [arn, *(consumer["ConsumerARN"] for consumer in consumers)]
        found[name] = {
            "summary": client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"],
            "shards": client.list_shards(StreamName=name)["Shards"],
            "consumers": consumers,
            "tags": [client.list_tags_for_resource(ResourceARN=resource)["Tags"] for resource in resources],
            "policies": [client.get_resource_policy(ResourceARN=resource)["Policy"] for resource in resources],
        }
    found["account"] = client.describe_account_settings()["MinimumThroughputBillingCommitment"]
    found["limits"] = client.describe_limits()["OpenShardCount"]
    return found


def records(client: Any, name: str) -> list[str]:
    """Return how each record of a stream's first shard is encrypted."""
    iterator = client.get_shard_iterator(StreamName=name, ShardId="0", ShardIteratorType="TRIM_HORIZON")
    return [
        record["EncryptionType"] for record in client.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    ]


def test_all_settings_survive_a_restart(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path, transition=0, quotas=False) as server:
        client = Endpoint("own", server.url).boto3()
        client.update_account_settings(MinimumThroughputBillingCommitment={"Status": "ENABLED"})
        client.create_stream(StreamName="orders", ShardCount=2, Tags={"team": "blue"})
        arn = f"{ARN}/orders"

        def done() -> None:
            client.describe_stream_summary(StreamName="orders")

        done()
        client.put_record(StreamName="orders", Data=b"plain", PartitionKey="k", ExplicitHashKey="0")
        client.start_stream_encryption(StreamName="orders", EncryptionType="KMS", KeyId="alias/a")
        done()
        client.put_record(StreamName="orders", Data=b"secret", PartitionKey="k", ExplicitHashKey="0")
        client.increase_stream_retention_period(StreamName="orders", RetentionPeriodHours=100)
        done()
        client.enable_enhanced_monitoring(StreamName="orders", ShardLevelMetrics=["IncomingBytes"])
        done()
        client.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=5000)
        done()
        client.update_shard_count(StreamName="orders", TargetShardCount=3, ScalingType="UNIFORM_SCALING")
        done()
        client.put_resource_policy(ResourceARN=arn, Policy=json.dumps({"Statement": []}))
        consumer = client.register_stream_consumer(StreamARN=arn, ConsumerName="app", Tags={"a": "b"})["Consumer"]
        done()
        client.put_resource_policy(ResourceARN=consumer["ConsumerARN"], Policy=json.dumps({"Statement": {}}))
        client.create_stream(
            StreamName="clicks",
            StreamModeDetails={"StreamMode": "ON_DEMAND"},
            WarmThroughputMiBps=6,
            RecordDistributionStrategy="AUTO",
        )
        client.describe_stream_summary(StreamName="clicks")
        before = look(client)
        assert records(client, "orders") == ["NONE", "KMS"]
    with Server(data_dir=tmp_path, transition=0, quotas=False) as server:
        client = Endpoint("own", server.url).boto3()
        assert look(client) == before
        assert records(client, "orders") == ["NONE", "KMS"]


def test_pending_changes_are_completed_after_a_restart(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path, transition=0, quotas=False) as server:
        client = Endpoint("own", server.url).boto3()
        client.create_stream(StreamName="orders", ShardCount=2)
        client.create_stream(StreamName="clicks", ShardCount=1)
    with Server(data_dir=tmp_path, transition=60, quotas=False) as server:
        client = Endpoint("own", server.url).boto3()
        client.update_shard_count(StreamName="orders", TargetShardCount=4, ScalingType="UNIFORM_SCALING")
        client.update_max_record_size(StreamARN=f"{ARN}/clicks", MaxRecordSizeInKiB=2048)
        client.register_stream_consumer(StreamARN=f"{ARN}/orders", ConsumerName="app")
        before = look(client)
        assert [before[name]["summary"]["StreamStatus"] for name in ("clicks", "orders")] == ["UPDATING"] * 2
        assert before["orders"]["consumers"][0]["ConsumerStatus"] == "CREATING"
    with Server(data_dir=tmp_path, transition=60, quotas=False) as server:
        client = Endpoint("own", server.url).boto3()
        assert look(client) == before
        server.advance(61)
        after = look(client)
    assert [after[name]["summary"]["StreamStatus"] for name in ("clicks", "orders")] == ["ACTIVE"] * 2
    assert after["orders"]["summary"]["OpenShardCount"] == 4
    assert after["clicks"]["summary"]["MaxRecordSizeInKiB"] == 2048
    assert after["orders"]["consumers"][0]["ConsumerStatus"] == "ACTIVE"


def test_shard_count_limit_survives_a_restart(tmp_path: Path) -> None:
    def scale(client: Any, target: int) -> None:
        client.update_shard_count(StreamName="orders", TargetShardCount=target, ScalingType="UNIFORM_SCALING")
        client.describe_stream_summary(StreamName="orders")

    with Server(data_dir=tmp_path, transition=0, quotas=False) as server:
        client = Endpoint("own", server.url).boto3()
        client.create_stream(StreamName="orders", ShardCount=1)
        client.describe_stream_summary(StreamName="orders")
        for turn in range(9):
            scale(client, 2 - turn % 2)
    with Server(data_dir=tmp_path, transition=0, quotas=False) as server:
        client = Endpoint("own", server.url).boto3()
        scale(client, 1)
        with pytest.raises(client.exceptions.LimitExceededException):
            scale(client, 2)

"""The account: limits, the minimum throughput billing commitment and its effects, and the identity of the caller."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import boto3
import botocore.exceptions
import pytest
from tests.contract.servers.reach import Endpoint, Raw

from kinstream.local import Server

HOUR = 3600.0
Refused = Callable[..., None]


@pytest.fixture
def own() -> Iterator[Server]:
    """A server of its own: an account has but one of each setting, and these cases move the time."""
    with Server(transition=0, quotas=False) as server:
        yield server


@pytest.fixture
def client(own: Server) -> Any:
    return Endpoint("own", own.url).boto3()


def commitment(client: Any) -> dict[str, Any]:
    return dict(client.describe_account_settings()["MinimumThroughputBillingCommitment"])


def commit(client: Any, status: str) -> dict[str, Any]:
    answer = client.update_account_settings(MinimumThroughputBillingCommitment={"Status": status})
    return dict(answer["MinimumThroughputBillingCommitment"])


def on_demand(client: Any, name: str, **options: Any) -> dict[str, Any]:
    """Make an on-demand stream. Return its summary."""
    client.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"}, **options)
    return summary(client, name)


def summary(client: Any, name: str) -> dict[str, Any]:
    return dict(client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"])


def arn(name: str) -> str:
    return f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}"


# Limits


def test_limits_count_shards_and_on_demand_streams(client: Any) -> None:
    client.create_stream(StreamName="orders", ShardCount=3)
    on_demand(client, "clicks")
    limits = client.describe_limits()
    del limits["ResponseMetadata"]
    assert limits == {
        "ShardLimit": 20000,
        "OpenShardCount": 7,
        "OnDemandStreamCount": 1,
        "OnDemandStreamCountLimit": 50,
    }
    client.split_shard(StreamName="orders", ShardToSplit="0", NewStartingHashKey="1000")
    client.describe_stream_summary(StreamName="orders")
    assert client.describe_limits()["OpenShardCount"] == 8


# The commitment


def test_account_has_no_commitment_by_default(client: Any) -> None:
    assert commitment(client) == {"Status": "DISABLED"}
    assert commit(client, "DISABLED") == {"Status": "DISABLED"}


def test_commitment_lasts_at_least_a_day(own: Server, client: Any) -> None:
    enabled = commit(client, "ENABLED")
    assert enabled["Status"] == "ENABLED"
    assert enabled["EarliestAllowedEndAt"] - enabled["StartedAt"] == timedelta(hours=24)
    assert commitment(client) == commit(client, "ENABLED") == enabled
    ending = commit(client, "DISABLED")
    assert ending == {**enabled, "Status": "ENABLED_UNTIL_EARLIEST_ALLOWED_END"}
    own.advance(25 * HOUR)
    assert commitment(client) == {
        "Status": "DISABLED",
        "StartedAt": enabled["StartedAt"],
        "EndedAt": enabled["EarliestAllowedEndAt"],
    }


def test_commitment_older_than_a_day_ends_immediately(own: Server, client: Any) -> None:
    commit(client, "ENABLED")
    own.advance(30 * HOUR)
    ended = commit(client, "DISABLED")
    assert ended["Status"] == "DISABLED"
    assert ended["EndedAt"] - ended["StartedAt"] > timedelta(hours=29)


def test_new_commitment_cancels_the_requested_end(client: Any) -> None:
    started = commit(client, "ENABLED")["StartedAt"]
    commit(client, "DISABLED")
    enabled = commit(client, "ENABLED")
    assert (enabled["Status"], enabled["StartedAt"]) == ("ENABLED", started)


def test_on_demand_stream_of_a_committed_account_has_fifty_consumers(client: Any, refused: Refused) -> None:
    commit(client, "ENABLED")
    on_demand(client, "clicks")
    for number in range(50):
        client.register_stream_consumer(StreamARN=arn("clicks"), ConsumerName=f"app-{number}")
    refused(
        "LimitExceededException",
        "its limit of 50 registered consumers",
        client.register_stream_consumer,
        StreamARN=arn("clicks"),
        ConsumerName="one-more",
    )
    assert summary(client, "clicks")["ConsumerCount"] == 50


# Warm throughput


def test_warm_throughput_needs_a_commitment(client: Any, refused: Refused) -> None:
    on_demand(client, "clicks")
    text = "MinimumThroughputBillingCommitment"
    mode = {"StreamMode": "ON_DEMAND"}
    refused(
        "ValidationException",
        text,
        client.update_stream_warm_throughput,
        StreamName="clicks",
        WarmThroughputMiBps=10,
    )
    refused(
        "ValidationException",
        text,
        client.create_stream,
        StreamName="more",
        StreamModeDetails=mode,
        WarmThroughputMiBps=10,
    )
    refused(
        "ValidationException",
        text,
        client.update_stream_mode,
        StreamARN=arn("clicks"),
        StreamModeDetails=mode,
        WarmThroughputMiBps=10,
    )


def test_warm_throughput_adds_the_necessary_shards(client: Any) -> None:
    commit(client, "ENABLED")
    before = on_demand(client, "clicks")
    assert (before["OpenShardCount"], before.get("WarmThroughput")) == (4, None)
    answer = client.update_stream_warm_throughput(StreamARN=arn("clicks"), WarmThroughputMiBps=10)
    del answer["ResponseMetadata"]
    assert answer == {
        "StreamARN": arn("clicks"),
        "StreamName": "clicks",
        "WarmThroughput": {"TargetMiBps": 10, "CurrentMiBps": 4},
    }
    after = summary(client, "clicks")
    assert (after["OpenShardCount"], after["WarmThroughput"]) == (10, {"TargetMiBps": 10, "CurrentMiBps": 10})
    client.update_stream_warm_throughput(StreamName="clicks", WarmThroughputMiBps=5)
    released = summary(client, "clicks")
    assert (released["OpenShardCount"], released["WarmThroughput"]["CurrentMiBps"]) == (10, 5)


def test_stream_is_created_with_warm_throughput(client: Any) -> None:
    commit(client, "ENABLED")
    made = on_demand(client, "clicks", WarmThroughputMiBps=7)
    assert (made["OpenShardCount"], made["WarmThroughput"]["CurrentMiBps"]) == (7, 7)


def test_stream_becomes_on_demand_with_warm_throughput(client: Any) -> None:
    commit(client, "ENABLED")
    client.create_stream(StreamName="orders", ShardCount=1)
    client.describe_stream_summary(StreamName="orders")
    client.update_stream_mode(
        StreamARN=arn("orders"), StreamModeDetails={"StreamMode": "ON_DEMAND"}, WarmThroughputMiBps=6
    )
    assert summary(client, "orders")["OpenShardCount"] == 6


def test_provisioned_stream_has_no_warm_throughput(client: Any, refused: Refused) -> None:
    commit(client, "ENABLED")
    client.create_stream(StreamName="orders", ShardCount=1)
    client.describe_stream_summary(StreamName="orders")
    refused(
        "ValidationException",
        "in Provisioned mode",
        client.update_stream_warm_throughput,
        StreamName="orders",
        WarmThroughputMiBps=10,
    )
    refused(
        "InvalidArgumentException",
        "ON_DEMAND",
        client.create_stream,
        StreamName="more",
        ShardCount=1,
        WarmThroughputMiBps=10,
    )


def test_warm_throughput_above_ten_gibibytes_a_second_is_refused(client: Any, refused: Refused) -> None:
    commit(client, "ENABLED")
    on_demand(client, "clicks")
    refused(
        "LimitExceededException",
        "10240",
        client.update_stream_warm_throughput,
        StreamName="clicks",
        WarmThroughputMiBps=10241,
    )


# By the clock


def test_eleventh_shard_count_is_accepted_the_next_day(own: Server, client: Any, refused: Refused) -> None:
    client.create_stream(StreamName="orders", ShardCount=1)
    client.describe_stream_summary(StreamName="orders")
    scaling = {"StreamName": "orders", "ScalingType": "UNIFORM_SCALING"}
    for turn in range(10):
        client.update_shard_count(TargetShardCount=2 - turn % 2, **scaling)
        own.advance(HOUR)
        client.describe_stream_summary(StreamName="orders")
    refused("LimitExceededException", "24-hour", client.update_shard_count, TargetShardCount=2, **scaling)
    own.advance(14 * HOUR)
    client.update_shard_count(TargetShardCount=2, **scaling)


# The identity of the caller


def sts(server: Server, **changes: Any) -> Any:
    options = {
        "endpoint_url": server.url,
        "region_name": "eu-west-1",
        "aws_access_key_id": server.access_key_id,
        "aws_secret_access_key": server.secret_access_key,
    }
    return boto3.session.Session().client("sts", **(options | changes))


def test_sts_returns_the_identity_of_the_caller(own: Server) -> None:
    identity = sts(own).get_caller_identity()
    assert identity["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "text/xml"
    del identity["ResponseMetadata"]
    assert identity == {
        "Account": "000000000000",
        "Arn": "arn:aws:iam::000000000000:root",
        "UserId": "000000000000",
    }


def test_sts_refuses_other_operations(own: Server) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        sts(own).get_session_token()
    assert caught.value.response["Error"]["Code"] == "InvalidAction"


def test_sts_checks_signatures(own: Server) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        sts(own, aws_secret_access_key="wrong").get_caller_identity()
    assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"


@pytest.mark.parametrize("body", [b"", b"Action=%00%01<&%f0%9f&Version=%ff", b"\xff\xfe", b"&".join([b"a=b"] * 200)])
def test_invalid_form_is_refused_in_xml(own: Server, body: bytes) -> None:
    raw = Raw(Endpoint("own", own.url))
    form = "application/x-www-form-urlencoded"
    headers = raw.sign("", body, content_type=form, service="sts")
    del headers["X-Amz-Target"]
    status, answer_headers, answer = raw.send(headers, body)
    assert (status, answer_headers["Content-Type"]) == (400, "text/xml")
    assert ET.fromstring(answer).tag == "{https://sts.amazonaws.com/doc/2011-06-15/}ErrorResponse"


def test_signature_for_kinesis_is_invalid_for_sts(own: Server) -> None:
    raw = Raw(Endpoint("own", own.url))
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    headers = raw.sign("", body, content_type="application/x-www-form-urlencoded")
    del headers["X-Amz-Target"]
    status, _, answer = raw.send(headers, body)
    assert status == 400
    assert b"InvalidSignatureException" in answer

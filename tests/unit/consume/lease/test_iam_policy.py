"""IAM policy of a worker."""

from __future__ import annotations

import json

import pytest

from kinstream import ConfigError
from kinstream.consume.lease.iam_policy import iam_policy

STREAM = "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/orders"
TABLES = "arn:aws-cn:dynamodb:cn-north-1:123456789012:table"


def resources(policy: dict[str, object]) -> dict[str, list[str]]:
    """Return the actions by resource."""
    statements = policy["Statement"]
    assert isinstance(statements, list)
    assert {statement["Effect"] for statement in statements} == {"Allow"}
    return {statement["Resource"]: statement["Action"] for statement in statements}


def test_worker_may_read_its_stream_and_write_the_tables_of_its_application() -> None:
    rows = [f"dynamodb:{action}" for action in ("Scan", "GetItem", "PutItem", "UpdateItem", "DeleteItem")]
    assert resources(iam_policy(STREAM, "billing")) == {
        STREAM: [
            f"kinesis:{action}" for action in ("ListShards", "DescribeStreamSummary", "GetShardIterator", "GetRecords")
        ],
        f"{TABLES}/billing": ["dynamodb:CreateTable", "dynamodb:DescribeTable", *rows],
        f"{TABLES}/billing/index/LeaseOwnerToLeaseKeyIndex": ["dynamodb:Query"],
        f"{TABLES}/billing-CoordinatorState": rows,
        f"{TABLES}/billing-WorkerMetricStats": rows,
    }


def test_fan_out_needs_its_consumer_too() -> None:
    found = resources(iam_policy(STREAM, "billing", fan_out=True))
    assert "kinesis:RegisterStreamConsumer" in found[STREAM]
    assert found[f"{STREAM}/consumer/*"] == ["kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard"]


def test_lease_table_may_have_another_name() -> None:
    found = resources(iam_policy(STREAM, "billing", table="leases"))
    assert f"{TABLES}/leases" in found
    assert f"{TABLES}/leases/index/LeaseOwnerToLeaseKeyIndex" in found
    assert f"{TABLES}/billing-CoordinatorState" in found


def test_policy_is_json() -> None:
    assert json.loads(json.dumps(iam_policy(STREAM, "billing")))["Version"] == "2012-10-17"


@pytest.mark.parametrize("arn", ["orders", "arn:aws:kinesis:x:1:stream/orders", f"{STREAM}/consumer/x"])
def test_other_text_than_the_arn_of_a_stream_is_refused(arn: str) -> None:
    with pytest.raises(ConfigError, match="stream_arn"):
        iam_policy(arn, "billing")

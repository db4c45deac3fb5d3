"""IAM policies have the least permissions for each role, on each stream, table and index."""

from __future__ import annotations

import json

import pytest

from kinstream.cli.iam.policy import Role, Statement, document, iam_policy
from kinstream.cli.main import main

STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
TABLES = "arn:aws:dynamodb:eu-west-1:123456789012:table"
ROWS = {f"dynamodb:{name}" for name in ("GetItem", "PutItem", "UpdateItem", "DeleteItem")}


def policy(role: Role, **options: object) -> dict[str, set[str]]:
    """Return the actions by resource."""
    place = {"region": "eu-west-1", "account": "123456789012", **options}
    found: dict[str, set[str]] = {}
    for statement in iam_policy("billing", "orders", role, **place):  # type: ignore[arg-type]
        for resource in statement.resources:
            found.setdefault(resource, set()).update(statement.actions)
    return found


def test_consumer_reads_the_stream_and_writes_its_lease_table() -> None:
    assert policy(Role.CONSUMER) == {
        STREAM: {
            "kinesis:DescribeStreamSummary",
            "kinesis:ListShards",
            "kinesis:GetShardIterator",
            "kinesis:GetRecords",
        },
        f"{TABLES}/billing": {"dynamodb:DescribeTable", "dynamodb:Scan", "dynamodb:CreateTable", *ROWS},
        f"{TABLES}/billing/index/LeaseOwnerToLeaseKeyIndex": {"dynamodb:Query"},
        f"{TABLES}/billing-CoordinatorState": {"dynamodb:Scan"},
        f"{TABLES}/billing-WorkerMetricStats": {"dynamodb:Scan"},
    }


def test_existing_table_needs_no_permission_to_create_it() -> None:
    found = policy(Role.CONSUMER, creates_table=False, table="leases")
    assert "dynamodb:CreateTable" not in found[f"{TABLES}/leases"]
    assert f"{TABLES}/leases/index/LeaseOwnerToLeaseKeyIndex" in found
    assert f"{TABLES}/billing-CoordinatorState" in found


def test_fan_out_is_allowed_for_the_named_consumer_only() -> None:
    found = policy(Role.CONSUMER, fan_out="billing")
    assert found[f"{STREAM}/consumer/billing:*"] == {
        "kinesis:RegisterStreamConsumer",
        "kinesis:DescribeStreamConsumer",
        "kinesis:SubscribeToShard",
    }
    assert "kinesis:SubscribeToShard" not in found[STREAM]


def test_consumer_with_workers_of_kcl_3_0_to_3_4_writes_their_tables() -> None:
    found = policy(Role.CONSUMER, kcl_tables=True)
    assert found[f"{TABLES}/billing-CoordinatorState"] == {"dynamodb:Scan", *ROWS}
    assert found[f"{TABLES}/billing-WorkerMetricStats"] == {"dynamodb:Scan", *ROWS}


def test_producer_has_no_access_to_tables_or_records() -> None:
    assert policy(Role.PRODUCER) == {
        STREAM: {"kinesis:PutRecord", "kinesis:PutRecords", "kinesis:ListShards", "kinesis:DescribeStreamSummary"}
    }


def test_monitor_changes_nothing() -> None:
    found = policy(Role.MONITOR, fan_out="billing")
    assert found[f"{TABLES}/billing"] == {"dynamodb:DescribeTable", "dynamodb:Scan"}
    verbs = ("Describe", "List", "Get", "Scan")
    assert all(action.split(":")[1].startswith(verbs) for actions in found.values() for action in actions)


def test_operator_writes_leases_and_creates_no_table() -> None:
    found = policy(Role.OPERATOR, kcl_tables=True)
    assert found[f"{TABLES}/billing"] == {"dynamodb:DescribeTable", "dynamodb:Scan", *ROWS}
    assert found[f"{TABLES}/billing-CoordinatorState"] == {"dynamodb:Scan"}
    assert f"{TABLES}/billing/index/LeaseOwnerToLeaseKeyIndex" not in found


def test_doctor_reads_only() -> None:
    found = policy(Role.DOCTOR, table="leases", fan_out="billing")
    tried = {"kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard"}
    assert found == {
        STREAM: {
            "kinesis:DescribeStreamSummary",
            "kinesis:ListShards",
            "kinesis:ListStreamConsumers",
            "kinesis:GetShardIterator",
            "kinesis:GetRecords",
            *tried,
        },
        f"{STREAM}/consumer/billing:*": tried,
        "*": {
            "kinesis:ListStreams",
            "kinesis:DescribeLimits",
            "kinesis:DescribeAccountSettings",
            "cloudwatch:GetMetricData",
        },
        f"{TABLES}/leases": {"dynamodb:DescribeTable", "dynamodb:Scan", "dynamodb:GetItem"},
        f"{TABLES}/leases/index/LeaseOwnerToLeaseKeyIndex": {"dynamodb:Query"},
        f"{TABLES}/billing-CoordinatorState": {"dynamodb:Scan"},
        f"{TABLES}/billing-WorkerMetricStats": {"dynamodb:Scan"},
    }


@pytest.mark.parametrize(
    ("role", "action"),
    [
        (Role.PRODUCER, "kms:GenerateDataKey"),
        (Role.CONSUMER, "kms:Decrypt"),
        (Role.MONITOR, "kms:Decrypt"),
        (Role.DOCTOR, "kms:Decrypt"),
    ],
)
def test_key_of_the_stream_is_included(role: Role, action: str) -> None:
    assert policy(role, kms_key="arn:aws:kms:key")["arn:aws:kms:key"] == {action}


@pytest.mark.parametrize(
    ("region", "partition"),
    [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), ("*", "aws"), ("eu-west-1", "aws")],
)
def test_arns_have_the_partition_of_the_region(region: str, partition: str) -> None:
    found = policy(Role.CONSUMER, region=region)
    assert {resource.split(":")[1] for resource in found} == {partition}


@pytest.mark.parametrize("role", Role)
def test_names_of_statements_are_valid_and_unique(role: Role) -> None:
    statements = iam_policy("billing", "orders", role, fan_out="f", kcl_tables=True, kms_key="arn:aws:kms:key")
    names = [statement.sid for statement in statements]
    assert len(set(names)) == len(names)
    assert all(name.isalnum() for name in names)


def test_document_has_the_format_of_iam() -> None:
    assert document([Statement("One", "reason", ("a:B",), ("arn",))]) == {
        "Version": "2012-10-17",
        "Statement": [{"Sid": "One", "Effect": "Allow", "Action": ["a:B"], "Resource": ["arn"]}],
    }


def test_command_prints_a_policy_that_iam_accepts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["iam", "billing", "--stream", STREAM, "--fan-out"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = iam_policy(
        "billing", "orders", Role.CONSUMER, region="eu-west-1", account="123456789012", fan_out="billing"
    )
    assert printed == document(expected)


def test_command_explains_each_statement(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--role", "monitor", "--region", "eu-west-1", "--account", "123456789012", "--explain"]
    assert main(["iam", "billing", "--stream", "orders", *options]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("ReadStream: find the shards and read their records\n    kinesis:DescribeStreamSummary\n")
    assert f"  on {TABLES}/billing-WorkerMetricStats\n" in shown


def test_account_has_12_digits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["iam", "billing", "--stream", "orders", "--account", "12"])
    assert ended.value.code == 2
    assert "--account: must be an account ID of 12 digits, not '12'" in capsys.readouterr().err

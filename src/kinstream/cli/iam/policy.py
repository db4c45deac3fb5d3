"""IAM policies for consumers, producers and commands: the actions that each needs, stream by stream and table by table. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from kinstream.consume.lease.kcl_tables import COORDINATOR_TABLE, INDEX_NAME, WORKERS_TABLE

VERSION = "2012-10-17"
"""Version of the policy language (IAM user guide, "IAM JSON policy elements: Version")."""

_PARTITIONS = (
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-isob-", "aws-iso-b"),
    ("us-isof-", "aws-iso-f"),
    ("us-iso-", "aws-iso"),
    ("eu-isoe-", "aws-iso-e"),
    ("eusc-", "aws-eusc"),
)
"""Partition of the regions with a prefix (botocore, `partitions.json`). All others are in the partition `aws`."""


class Role(StrEnum):
    """Process that gets the permissions."""

    CONSUMER = "consumer"
    """Workers of an application."""
    PRODUCER = "producer"
    """Producers of a stream."""
    MONITOR = "monitor"
    """The commands `kinstream leases show` and `kinstream lag`, which change nothing."""
    OPERATOR = "operator"
    """The commands `kinstream leases release` and `kinstream leases reset`, and those of MONITOR."""
    DOCTOR = "doctor"
    """The command `kinstream doctor`, without its dry runs of PutRecord and PutRecords, whose permission would allow writes."""


class Statement(msgspec.Struct, frozen=True):
    """A statement of a policy, which allows actions on resources.

    Attributes:
        sid: Its name.
        reason: Use of the actions.
        actions: Actions, with their service.
        resources: ARNs.
    """

    sid: str
    reason: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


def iam_policy(
    application: str,
    stream: str,
    role: Role,
    *,
    table: str | None = None,
    region: str = "*",
    account: str = "*",
    fan_out: str | None = None,
    creates_table: bool = True,
    kcl_tables: bool = False,
    kms_key: str | None = None,
) -> list[Statement]:
    """Return the statements of the policy that a process needs.

    Args:
        application: Name of the application.
        stream: Name of the stream.
        role: The process that gets the permissions.
        table: DynamoDB table of the leases. None: the name of the application.
        region: Region, or "*" for all.
        account: Account ID, or "*" for all.
        fan_out: Name of the consumer for enhanced fan-out. None: polling only.
        creates_table: True if the workers may create the lease table.
        kcl_tables: True to write the two further tables of an application that has workers of KCL 3.0 to 3.4.
        kms_key: ARN of the stream's KMS key. None: the stream is not encrypted, or by the key of AWS.
    """
    partition = next((name for prefix, name in _PARTITIONS if region.startswith(prefix)), "aws")
    place = f"{region}:{account}"
    stream_arn = f"arn:{partition}:kinesis:{place}:stream/{stream}"
    if role is Role.PRODUCER:
        statements = [_writes(stream_arn)]
    else:
        tables = f"arn:{partition}:dynamodb:{place}:table/"
        statements = [
            _reads(stream_arn),
            *(_examines(stream_arn) if role is Role.DOCTOR else ()),
            *(_fan_out(stream_arn, fan_out, role) if fan_out is not None else ()),
            *_tables(tables, application, application if table is None else table, role, creates_table, kcl_tables),
        ]
    if kms_key is not None:
        statements.append(_key(kms_key, role))
    return statements


def document(statements: list[Statement]) -> dict[str, Any]:
    """Return a policy in the format of IAM."""
    return {
        "Version": VERSION,
        "Statement": [
            {"Sid": one.sid, "Effect": "Allow", "Action": list(one.actions), "Resource": list(one.resources)}
            for one in statements
        ],
    }


def _writes(stream: str) -> Statement:
    return Statement(
        "WriteStream",
        "write records, and find the shard of each key for aggregation",
        ("kinesis:PutRecord", "kinesis:PutRecords", "kinesis:ListShards", "kinesis:DescribeStreamSummary"),
        (stream,),
    )


def _reads(stream: str) -> Statement:
    return Statement(
        "ReadStream",
        "find the shards and read their records",
        ("kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:GetShardIterator", "kinesis:GetRecords"),
        (stream,),
    )


def _examines(stream: str) -> tuple[Statement, ...]:
    account = ("kinesis:ListStreams", "kinesis:DescribeLimits", "kinesis:DescribeAccountSettings")
    return (
        Statement("ListConsumers", "find orphaned fan-out consumers", ("kinesis:ListStreamConsumers",), (stream,)),
        Statement("ReadAccount", "reach the endpoint, and compare the account with its quotas", account, ("*",)),
        Statement("ReadMetrics", "find throttled requests and full shards", ("cloudwatch:GetMetricData",), ("*",)),
    )


def _fan_out(stream: str, consumer: str, role: Role) -> tuple[Statement, ...]:
    consumers = f"{stream}/consumer/{consumer}:*"
    if role is Role.DOCTOR:
        tried = ("kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard")
        return (Statement("TryFanOut", "check the permissions of enhanced fan-out", tried, (stream, consumers)),)
    if role is not Role.CONSUMER:
        return ()
    return (
        Statement(
            "RegisterFanOut",
            "register the consumer for enhanced fan-out",
            ("kinesis:RegisterStreamConsumer", "kinesis:DescribeStreamConsumer"),
            (stream, consumers),
        ),
        Statement(
            "SubscribeFanOut", "receive records by enhanced fan-out", ("kinesis:SubscribeToShard",), (consumers,)
        ),
    )


def _tables(
    tables: str, application: str, table: str, role: Role, creates_table: bool, kcl_tables: bool
) -> list[Statement]:
    reads = ("dynamodb:DescribeTable", "dynamodb:Scan")
    writes = ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem")
    others = tuple(f"{tables}{name.format(application)}" for name in (COORDINATOR_TABLE, WORKERS_TABLE))
    lease_table = f"{tables}{table}"
    index = f"{lease_table}/index/{INDEX_NAME}"
    if role in (Role.MONITOR, Role.DOCTOR):
        other_tables = Statement(
            "ReadOtherTables", "read the leader and the workers of KCL 3.0 to 3.4", reads[1:], others
        )
        if role is Role.MONITOR:
            return [Statement("ReadLeases", "read the leases", reads, (lease_table,)), other_tables]
        use = "read the leases, and check the permissions of a consumer"
        return [
            Statement("ReadLeases", use, (*reads, "dynamodb:GetItem"), (lease_table,)),
            Statement("LeaseIndex", "check the permission for the index", ("dynamodb:Query",), (index,)),
            other_tables,
        ]
    statements = [Statement("Leases", "read and write the leases and checkpoints", (*reads, *writes), (lease_table,))]
    if role is Role.CONSUMER:
        statements.append(Statement("LeaseIndex", "find the leases of a worker soon", ("dynamodb:Query",), (index,)))
        if creates_table:
            create = ("dynamodb:CreateTable",)
            statements.append(Statement("CreateLeaseTable", "create the lease table once", create, (lease_table,)))
    if kcl_tables and role is Role.CONSUMER:
        use = "take part in an application with workers of KCL 3.0 to 3.4"
        return [*statements, Statement("OtherTables", use, (*reads[1:], *writes), others)]
    see = "see whether the application has the tables of KCL 3.0 to 3.4"
    return [*statements, Statement("ReadOtherTables", see, reads[1:], others)]


def _key(key: str, role: Role) -> Statement:
    if role is Role.PRODUCER:
        return Statement("EncryptRecords", "encrypt records with the stream's key", ("kms:GenerateDataKey",), (key,))
    return Statement("DecryptRecords", "decrypt records with the stream's key", ("kms:Decrypt",), (key,))

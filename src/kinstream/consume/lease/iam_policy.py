"""IAM policy of a worker: the permissions on the stream and on the tables of its application. Pure."""

from __future__ import annotations

import re
from typing import Any

from kinstream.consume.lease.kcl_tables import COORDINATOR_TABLE, INDEX_NAME, WORKERS_TABLE
from kinstream.errors import ConfigError

_STREAM_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):kinesis:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):stream/[a-zA-Z0-9_.-]{1,128}"
)

_READ_STREAM = ["ListShards", "DescribeStreamSummary", "GetShardIterator", "GetRecords"]
_FAN_OUT_STREAM = ["RegisterStreamConsumer"]
_FAN_OUT_CONSUMER = ["DescribeStreamConsumer", "SubscribeToShard"]
_ROWS = ["Scan", "GetItem", "PutItem", "UpdateItem", "DeleteItem"]


def iam_policy(stream_arn: str, application: str, *, table: str | None = None, fan_out: bool = False) -> dict[str, Any]:
    """Return the IAM policy document that a worker needs, with one statement for each resource.

    Args:
        stream_arn: ARN of the stream.
        application: Name of the application.
        table: Name of the lease table. None: the name of the application.
        fan_out: True to include enhanced fan-out.

    Raises:
        ConfigError: The ARN is not that of a stream.
    """
    found = _STREAM_ARN.fullmatch(stream_arn)
    if found is None:
        raise ConfigError(
            f"stream_arn={stream_arn!r}: must be the ARN of a stream (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME)"
        )
    tables = f"arn:{found['partition']}:dynamodb:{found['region']}:{found['account']}:table"
    leases = f"{tables}/{table or application}"
    statements = [_allow("Stream", "kinesis", _READ_STREAM + (_FAN_OUT_STREAM if fan_out else []), stream_arn)]
    if fan_out:
        statements.append(_allow("Consumer", "kinesis", _FAN_OUT_CONSUMER, f"{stream_arn}/consumer/*"))
    statements += [
        _allow("LeaseTable", "dynamodb", ["CreateTable", "DescribeTable", *_ROWS], leases),
        _allow("LeaseIndex", "dynamodb", ["Query"], f"{leases}/index/{INDEX_NAME}"),
        # Read in any case, to see whether workers of KCL 3.0 to 3.4 use the application.
        _allow("CoordinatorTable", "dynamodb", _ROWS, f"{tables}/{COORDINATOR_TABLE.format(application)}"),
        _allow("WorkersTable", "dynamodb", _ROWS, f"{tables}/{WORKERS_TABLE.format(application)}"),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(name: str, service: str, actions: list[str], resource: str) -> dict[str, Any]:
    return {
        "Sid": name,
        "Effect": "Allow",
        "Action": [f"{service}:{action}" for action in actions],
        "Resource": resource,
    }

"""Records as AWS services and others write them to Kinesis streams, from their documentation."""

from __future__ import annotations

import base64
import json
from typing import Any

# AWS Lambda Developer Guide and Powertools, example event of CloudWatch Logs: gzip made by others.
CLOUDWATCH_LOGS = base64.b64decode(
    "H4sIAAAAAAAAAHWPwQqCQBCGX0Xm7EFtK+smZBEUgXoLCdMhFtKV3akI8d0bLYmibvPPN3wz00CJxmQnTO41whwWQRIctmEcB6sQbFC3CjW3XW8kxpOpP+OC"
    "22d1Wml1qZkQGtoMsScxaczKN3plG8zlaHIta5KqWsozoTYw3/djzwhpLwivWFGHGpAFe7DL68JlBUk+l7KSN7tCOEJ4M3/qOI49vMHj+zCKdlFqLaU2ZHV2"
    "a4Ct/an0/ivdX8oYc1UVX860fQDQiMdxRQEAAA=="
)

# Amazon CloudWatch Logs User Guide, "Log group-level subscription filters": the message that checks the destination.
CLOUDWATCH_CONTROL: dict[str, Any] = {
    "owner": "CloudwatchLogs",
    "logGroup": "",
    "logStream": "",
    "subscriptionFilters": [],
    "messageType": "CONTROL_MESSAGE",
    "logEvents": [
        {
            "id": "",
            "timestamp": 1510109208016,
            "message": "CWL CONTROL MESSAGE: Checking health of destination Kinesis stream.",
        }
    ],
}

# The fields of the Amazon DynamoDB Developer Guide, "Change data capture for Kinesis Data Streams", with every attribute type.
DYNAMODB: dict[str, Any] = {
    "awsRegion": "us-west-2",
    "eventID": "f4bd5c2a-0f5a-4d0a-9d1b-0f0f0d7f8a11",
    "eventName": "MODIFY",
    "userIdentity": None,
    "recordFormat": "application/json",
    "tableName": "Music",
    "dynamodb": {
        "ApproximateCreationDateTime": 1640276115917,
        "Keys": {"Artist": {"S": "No One You Know"}, "Year": {"N": "1999"}},
        "NewImage": {
            "Artist": {"S": "No One You Know"},
            "Year": {"N": "1999"},
            "Price": {"N": "-12.50"},
            "Large": {"N": "1.2345678901234567890123456789012345678E+125"},
            "Cover": {"B": "AP9zZWNyZXQ="},
            "Live": {"BOOL": False},
            "Label": {"NULL": True},
            "Tags": {"SS": ["rock", "pop"]},
            "Scores": {"NS": ["3", "3.0", "-7e-5"]},
            "Hashes": {"BS": ["AA==", "/w=="]},
            "Tracks": {"L": [{"S": "one"}, {"M": {"n": {"N": "2"}, "none": {"L": []}}}]},
            "More": {"M": {}},
        },
        "OldImage": {"Artist": {"S": "No One You Know"}, "Year": {"N": "1999"}},
        "SizeBytes": 268,
    },
    "eventSource": "aws:dynamodb",
}

# AWS Database Migration Service User Guide, "Using Amazon Kinesis Data Streams as a target".
DMS: dict[str, Any] = {
    "data": {"id": 42, "name": "John", "amount": 10.5},
    "before-image": {"id": 42, "name": "Jon", "amount": 10.5},
    "metadata": {
        "timestamp": "2022-03-14T14:18:11.104009Z",
        "record-type": "data",
        "operation": "update",
        "partition-key-type": "schema-table",
        "schema-name": "testdb",
        "table-name": "retail_trans",
        "transaction-id": 8590392498,
    },
}
DMS_CONTROL: dict[str, Any] = {
    "control": {"table-def": {"columns": {"id": {"type": "INT32", "nullable": False}}}},
    "metadata": {
        "timestamp": "2024-07-29T00:30:47.258815Z",
        "record-type": "control",
        "operation": "create-table",
        "partition-key-type": "task-id",
        "schema-name": "public",
        "table-name": "foo",
    },
}

# Amazon EventBridge User Guide, "Events", the example of EC2.
EVENTBRIDGE: dict[str, Any] = {
    "version": "0",
    "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "account": "111122223333",
    "time": "2017-12-22T18:43:48Z",
    "region": "us-west-1",
    "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],
    "detail": {"instance-id": "i-1234567890abcdef0", "state": "terminated"},
}

# CloudEvents 1.0, "JSON Event Format", 3.3.
CLOUDEVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "com.example.someevent",
    "source": "/mycontext",
    "subject": None,
    "id": "C234-1234-1234",
    "time": "2018-04-05T17:31:00Z",
    "comexampleextension1": "value",
    "comexampleothervalue": 5,
    "datacontenttype": "application/json",
    "data": {"appinfoA": "abc", "appinfoB": 123, "appinfoC": True},
}


def encoded(document: Any) -> bytes:
    """Return a document as JSON."""
    return json.dumps(document).encode()

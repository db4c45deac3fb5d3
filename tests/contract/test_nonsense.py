"""Requests of random members and values, well signed: every one is answered, and none with a 500."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import cbor2
import msgspec
import pytest
from botocore.session import Session

from kinstream.clock import SYSTEM_CLOCK
from kinstream.local.operations import Operations
from kinstream.local.state import State
from kinstream.local.store import MemoryStore

OPERATIONS: dict[str, type[msgspec.Struct]] = {
    name: shape
    for name in Session().get_service_model("kinesis").operation_names
    if (shape := Operations(State(), MemoryStore(), SYSTEM_CLOCK).shape(name)) is not None
}
REQUESTS = 1000
"""On each server."""


class Nonsense:
    """Makes requests that are nearly right."""

    def __init__(self, seed: int, name: str, tokens: list[str], cbor: bool) -> None:
        self.random = random.Random(seed)
        self.name = name
        self.tokens = tokens
        self.cbor = cbor

    def request(self, members: list[str]) -> dict[str, Any]:
        rare = {"StreamARN", "NextToken", "ExplicitHashKey", "ShardFilter", "StreamModeDetails", "DryRun", "Timestamp"}
        if "StreamName" not in members:
            rare -= {"StreamARN", "StreamModeDetails"}
        chosen = [m for m in members if self.random.random() < (0.25 if m in rare or "Start" in m else 0.95)]
        return {member: self.member(member) for member in chosen}

    def member(self, name: str) -> Any:
        pick = self.random.choice
        if self.random.random() < 0.04:
            return self.anything()
        if name == "Data":
            data = self.random.randbytes(self.random.randrange(40))
            return data if self.cbor else pick(["", "YQ==", "YWI=", data.hex()])
        if name == "Records":
            fields = ["Data", "PartitionKey", "ExplicitHashKey"]
            return [self.request(fields) for _ in range(self.random.randrange(4))]
        if name == "ShardFilter":
            return self.request(["Type", "ShardId", "Timestamp"])
        if name == "StreamModeDetails":
            return {"StreamMode": pick(["PROVISIONED", "ON_DEMAND", "X"])}
        if name.endswith("ARN"):
            arn = f"arn:aws:kinesis:us-east-1:{pick([*['000000000000'] * 4, '1' * 12])}:stream/{self.name}"
            ends = {"StreamARN": [""], "ConsumerARN": ["/consumer/app:1"], "ResourceARN": ["", "", "/consumer/app:1"]}
            return arn + pick([*ends[name], "/consumer/:x"][: 1 if self.random.random() < 0.9 else None])
        if name == "Tags":
            return {pick(["a", "b", "ä", "aws:a", "%", ""]): pick(["", "v", "x" * 300]) for _ in range(2)}
        if name == "TagKeys":
            return [pick(["a", "b", ""])]
        if name == "ShardLevelMetrics":
            return [pick(["ALL", "IncomingBytes", "X"])]
        if name == "MinimumThroughputBillingCommitment":
            return {"Status": pick(["ENABLED", "DISABLED", "X"])}
        if "Timestamp" in name:
            moment = pick([0, -1, 1e9, 1.9e9, 1e15, -1e15])
            return cbor2.CBORTag(1, round(moment)) if self.cbor else moment
        choices: dict[str, list[Any]] = {
            "StreamName": [*[self.name] * 9, "nowhere", "", "ä", "x" * 200],
            "ShardIteratorType": [
                "LATEST",
                "TRIM_HORIZON",
                "AT_TIMESTAMP",
                "AT_SEQUENCE_NUMBER",
                "AFTER_SEQUENCE_NUMBER",
            ],
            "Type": ["AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP"],
            "ShardIterator": self.tokens,
            "NextToken": self.tokens,
            "DryRun": [False, False, True],
            "EnforceConsumerDeletion": [True, False],
            "ConsumerName": [*["app"] * 6, "bpp", "", "a b"],
            "EncryptionType": ["KMS", "KMS", "NONE", "X"],
            "KeyId": ["alias/a", ""],
            "MaxRecordSizeInKiB": [1024, 2048, 10240, 1],
            "Policy": ['{"Statement": []}', "[", "", "[" * 10000],
            "RecordDistributionStrategy": ["AUTO", "USER_PARTITION_KEY", "X"],
            "RetentionPeriodHours": [24, 25, 48, 8760, 8761, 1],
            "ScalingType": ["UNIFORM_SCALING", "X"],
            "StreamMode": ["PROVISIONED", "ON_DEMAND"],
            "WarmThroughputMiBps": [0, 3, 6, 20000],
            "PartitionKey": ["k", "ä", "🎈", "0", "x" * 300],
        }
        if name in choices:
            return pick(choices[name])
        if "Shard" in name and not name.endswith("Count"):
            return pick(["shardId-000000000000", "shardId-000000000001", "0", "shardId-9", "-1", ""])
        if "Key" in name or "Number" in name:
            return pick(["0", "1", str(2**127), str(2**128), "9" * 39, "k", "🎈", "", "49" + "5" * 54])
        return pick([0, 1, 2, 3, 10000, 10001, -1])

    def anything(self) -> Any:
        values: list[Any] = [
            None,
            True,
            -1,
            2**63,
            2**70,
            1.5,
            1e308,
            "",
            "text",
            [],
            {},
            [None],
            {"a": [{}]},
            [[]],
            "\u0000",
        ]
        return self.random.choice(values)


@pytest.mark.parametrize("cbor", [False, True], ids=["json", "cbor"])
def test_nonsense_is_answered_and_never_with_a_500(
    raw: Any, stream: Callable[..., str], names: Any, cbor: bool
) -> None:
    name = stream(2)
    position = {"StreamName": name, "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    tokens = ["x", raw.json("GetShardIterator", position)["ShardIterator"]]
    tokens.append(raw.json("ListShards", {"StreamName": name, "MaxResults": 1})["NextToken"])
    nonsense = Nonsense(7, name, tokens, cbor)
    content_type = "application/x-amz-cbor-1.1" if cbor else "application/x-amz-json-1.1"
    statuses: dict[int, int] = {}
    for _ in range(REQUESTS):
        operation = nonsense.random.choice(sorted(OPERATIONS))
        members = [field.encode_name for field in msgspec.structs.fields(OPERATIONS[operation])]
        params = nonsense.request(members)
        if operation == "CreateStream":
            params["StreamName"] = "nonsense-" + name if nonsense.random.random() < 0.5 else params.get("StreamName")
        body = cbor2.dumps(params) if cbor else json.dumps(params).encode()
        status, _, answer = raw.send(raw.sign(operation, body, content_type=content_type), body)
        statuses[status] = statuses.get(status, 0) + 1
        assert status in (200, 400), (operation, params, answer)
        if operation == "DeleteStream" and status == 200:
            again = json.dumps({"StreamName": name, "ShardCount": 2}).encode()
            raw.send(raw.sign("CreateStream", again), again)
    assert statuses[200] > REQUESTS / 12
    assert statuses[400] > REQUESTS / 12


def test_long_name_takes_no_long_time(raw: Any) -> None:
    # A pattern with two stars would look at this for hours.
    body = json.dumps({"StreamARN": "arn:aws" + ":kinesis:" * 500_000}).encode()
    status, code, text = raw.refusal(raw.sign("DescribeStream", body), body)
    assert (status, code) == (400, "ValidationException")
    assert len(text) < 5000

"""Nearly valid requests for every operation, with members that are valid, at a boundary, hostile or missing."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterable
from typing import Any

import cbor2
import msgspec
from botocore.session import Session

from kinstream.clock import SYSTEM_CLOCK
from kinstream.local.operations.table import Operations
from kinstream.local.state.state import State
from kinstream.local.storage.record_store import MemoryStore

OPERATIONS: dict[str, type[msgspec.Struct]] = {
    name: shape
    for name in Session().get_service_model("kinesis").operation_names
    if (shape := Operations(State(), MemoryStore(), SYSTEM_CLOCK).shape(name)) is not None
}
MEMBERS = {
    name: [field.encode_name for field in msgspec.structs.fields(shape)] for name, shape in sorted(OPERATIONS.items())
}
READS = [name for name in MEMBERS if name.startswith(("Describe", "Get", "List"))]
"""Operations that change nothing."""

POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": "111111111111"},
                "Action": "kinesis:GetRecords",
                "Resource": "arn:aws:kinesis:us-east-1:000000000000:stream/fuzz-0",
            }
        ],
    }
)

PUSHED = "SubscribeToShard"
OFTEN = ["CreateStream", "GetRecords", "GetShardIterator", "ListShards", "PutRecord", "PutRecords", "SplitShard"]
CHOICES = [*MEMBERS, *OFTEN * 3]

RARE = {
    "DryRun",
    "ExclusiveStartShardId",
    "ExclusiveStartStreamName",
    "ExclusiveStartTagKey",
    "ExplicitHashKey",
    "NextToken",
    "SequenceNumberForOrdering",
    "ShardFilter",
    "StartingSequenceNumber",
    "StreamARN",
    "StreamCreationTimestamp",
    "StreamModeDetails",
    "Timestamp",
}
"""Members that are seldom there: with them most requests are refused, or are about something else."""

POOL = 64
"""Maximum number of values of a kind to remember."""

LEARNED = {
    "AdjacentParentShardId": "ShardId",
    "ConsumerARN": "ConsumerARN",
    "EndingSequenceNumber": "Number",
    "NextShardIterator": "ShardIterator",
    "NextToken": "NextToken",
    "SequenceNumber": "Number",
    "ShardId": "ShardId",
    "ShardIterator": "ShardIterator",
    "StartingHashKey": "HashKey",
    "StartingSequenceNumber": "Number",
}
"""Members of answers that are used again, by the kind of member that they serve as."""


class Nonsense:
    """Makes requests.

    Args:
        seed: The same one makes the same requests, if the answers are the same.
        names: Streams to ask about.
        cbor: Whether the parameters are for CBOR.
        kept: A stream that is only asked about, never changed.
        pushed: True if shards are subscribed to too. Those responses continue until they are ended.
    """

    def __init__(
        self, seed: int, names: Iterable[str], *, cbor: bool, kept: str | None = None, pushed: bool = False
    ) -> None:
        self.random = random.Random(seed)
        self.names = list(names)
        self.cbor = cbor
        self.kept = kept
        self.choices: list[str] = [*CHOICES, *[PUSHED] * 3] if pushed else [name for name in CHOICES if name != PUSHED]
        self.known: dict[str, list[Any]] = {
            "ConsumerARN": [f"arn:aws:kinesis:us-east-1:000000000000:stream/{self.names[0]}/consumer/app:1"],
            "HashKey": [0, 2**127],
            "NextToken": ["x"],
            "Number": ["49" + "5" * 54],
            "ShardId": ["shardId-000000000000", "shardId-000000000001"],
            "ShardIterator": ["x"],
        }
        self._reading = False

    def call(self) -> tuple[str, dict[str, Any]]:
        """Return an operation and its parameters."""
        if self.random.random() < 0.04:
            return "CreateStream", {
                "StreamName": self.random.choice(self.names),
                "ShardCount": self.random.choice([1, 2, 5]),
            }
        operation = self.random.choice(self.choices)
        if operation == "DeleteStream" and self.random.random() < 0.6:
            operation = "GetRecords"
        self._reading = operation in READS
        return operation, self.request(MEMBERS[operation])

    def learn(self, answer: Any) -> None:
        """Remember values that later requests can use."""
        if isinstance(answer, dict):
            for name, value in answer.items():
                if name in LEARNED and value is not None:
                    kind = LEARNED[name]
                    pool = self.known[kind]
                    if len(pool) >= POOL:
                        del pool[self.random.randrange(POOL)]
                    pool.append(value)
                elif isinstance(value, (dict, list)):
                    self.learn(value)
        elif isinstance(answer, list):
            for value in answer[:3]:
                self.learn(value)

    def encode(self, params: dict[str, Any]) -> bytes:
        """Return parameters as a body."""
        return cbor2.dumps(params) if self.cbor else json.dumps(params).encode()

    def request(self, members: list[str]) -> dict[str, Any]:
        """Return parameters, some of them missing."""
        pick = self.random.choice
        rare = RARE if "StreamName" in members else RARE - {"StreamARN", "StreamModeDetails"}
        if "ConsumerARN" in members and "ParsedConsumerArn" in members:
            members = pick([["ConsumerARN"], ["ConsumerARN"], ["StreamARN", "ParsedConsumerArn"], members])
        chosen = [m for m in members if self.random.random() < (0.2 if m in rare else 0.98)]
        if "StreamName" in chosen and self.random.random() < 0.9:
            chosen = [member for member in chosen if member != "StreamARN"]
        return {member: self.member(member) for member in chosen}

    def name(self) -> str:
        """Return the name of a stream."""
        if self._reading and self.kept is not None and self.random.random() < 0.2:
            return self.kept
        return self.random.choice(self.names)

    def member(self, name: str) -> Any:
        """Return a value for a member."""
        pick, chance = self.random.choice, self.random.random()
        if chance < 0.01:
            return self.anything()
        if name in self.known and chance < 0.9:
            return pick(self.known[name][-8:] if chance < 0.5 else self.known[name])
        if name == "Data":
            data = self.random.randbytes(self.random.choice([0, 1, 3, 40, 40, 40, 1000]))
            return data if self.cbor else base64.b64encode(data).decode() if chance < 0.97 else data.hex()
        if name == "Records":
            fields = ["Data", "PartitionKey", "ExplicitHashKey"]
            return [
                self.request(fields)
                for _ in range(pick([0, 1, 2, 3, 3, 3, 20, 20, 500, 501][: 8 + (chance > 0.9) * 2]))
            ]
        if name == "ShardFilter":
            return self.request(["Type", "ShardId", "Timestamp"])
        if name == "StartingPosition":
            kind = self.member("ShardIteratorType")
            given = self.request(["SequenceNumber"] if "NUMBER" in str(kind) else ["Timestamp"])
            return {"Type": kind} | (given if chance < 0.1 or "T_" in str(kind) or "R_" in str(kind) else {})
        if name == "StreamModeDetails":
            return {"StreamMode": pick([*["PROVISIONED"] * 5, "ON_DEMAND", "X"])}
        if name.endswith("ARN"):
            arn = f"arn:aws:kinesis:us-east-1:{pick([*['000000000000'] * 9, '1' * 12])}:stream/{self.name()}"
            ends = {"StreamARN": [""], "ConsumerARN": ["/consumer/app:1"], "ResourceARN": ["", "", "/consumer/app:1"]}
            return arn + pick([*ends[name], "/consumer/:x"][: 1 if self.random.random() < 0.9 else None])
        if name == "Tags":
            tags: dict[str, str] = {pick(["a", "b", "ä"]): pick(["", "v"])}
            return tags if chance < 0.7 else tags | {pick(["aws:a", "%", ""]): pick(["v", "x" * 300])}
        if name == "TagKeys":
            return [pick(["a", "b", ""])]
        if name == "ShardLevelMetrics":
            return [pick(["ALL", "IncomingBytes", "OutgoingBytes", "X"])]
        if name == "MinimumThroughputBillingCommitment":
            return {"Status": pick(["ENABLED", "DISABLED", "X"])}
        if "Timestamp" in name:
            moment = pick([0, -1, 1e9, 1.8e9, 1.9e9, 1e15, -1e15, 253402300800.0, 9007199254740])
            return cbor2.CBORTag(1, round(moment)) if self.cbor else moment
        choices: dict[str, list[Any]] = {
            "StreamName": [*[self.name()] * 60, "nowhere", "", "ä", "x" * 200],
            "ShardIteratorType": [
                *["LATEST", "TRIM_HORIZON"] * 3,
                "AT_TIMESTAMP",
                "AT_SEQUENCE_NUMBER",
                "AFTER_SEQUENCE_NUMBER",
            ],
            "Type": ["AFTER_SHARD_ID", "AT_TRIM_HORIZON", "FROM_TRIM_HORIZON", "AT_LATEST", "AT_TIMESTAMP"],
            "DryRun": [False, False, True],
            "EnforceConsumerDeletion": [True, False],
            "ParsedConsumerArn": [*["app"] * 6, "bpp", "", "a b"],
            "EncryptionType": ["KMS", "KMS", "NONE", "X"],
            "KeyId": ["alias/a", ""],
            "MaxRecordSizeInKiB": [1024, 2048, 10240, 1],
            "Policy": [POLICY, POLICY, '{"Statement": []}', "[", "", "[" * 10000],
            "RecordDistributionStrategy": ["AUTO", "USER_PARTITION_KEY", "X"],
            "RetentionPeriodHours": [24, 25, 48, 8760, 8761, 1],
            "ScalingType": [*["UNIFORM_SCALING"] * 3, "X"],
            "StreamMode": ["PROVISIONED", "ON_DEMAND"],
            "WarmThroughputMiBps": [0, 3, 6, 20000],
            "PartitionKey": [*["k", "ä", "🎈", "0", str(self.random.random())] * 5, "x" * 300],
            "ShardCount": [1, 2, 3, 3, 7, 0, 100_000, -1],
            "TargetShardCount": [1, 2, 3, 4, 6, 10000, 0],
            "NewStartingHashKey": [str(2**127), str(pick(self.known["HashKey"])), str(self.random.getrandbits(128))],
        }
        if name in choices:
            return pick(choices[name])
        if "Shard" in name and not name.endswith("Count"):
            if chance < 0.9:
                return pick(self.known["ShardId"])
            return pick(["shardId-000000000001", "0", "shardId-9", "-1", "", "shardId-" + "9" * 12])
        if "Number" in name and chance < 0.8:
            return pick(self.known["Number"])
        if name == "ExplicitHashKey" and chance < 0.9:
            return str(self.random.getrandbits(128))
        if "Key" in name or "Number" in name:
            return pick(["0", "1", str(2**127), str(2**128), "9" * 39, "k", "🎈", "", "49" + "5" * 54])
        return pick([1, 2, 3, 10000, 1, 2, 3, 10000, 0, 10001, -1])

    def anything(self) -> Any:
        """Return a value that no member expects, or that any member might."""
        values: list[Any] = [
            None,
            True,
            -1,
            2**63,
            2**64,
            2**70,
            1.5,
            1e308,
            float("nan"),
            float("-inf"),
            "",
            "text",
            "x" * 5000,
            "\u0000",
            "0" * 200,
            "shardId-" + "9" * 30,
            [],
            {},
            [None],
            {"a": [{}]},
            [[]],
            {"": ""},
        ]
        hard: list[Any] = ["\ud800", 10**500, [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]
        if self.cbor:
            hard = [
                b"\xff",
                cbor2.CBORTag(1, "x"),
                cbor2.CBORTag(1, float("nan")),
                cbor2.CBORSimpleValue(99),
                cbor2.undefined,
            ]
        return self.random.choice([*values, *hard])

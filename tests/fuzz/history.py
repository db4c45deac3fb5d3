"""A history: random steps on a few streams, and the checks after each step.

Every step makes the same call to the server and to the model, and compares the results. A step that a kill interrupted is in
doubt until the restart. Then it must have happened completely or not at all.
"""

from __future__ import annotations

import base64
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import md5
from typing import Any

from tests.fuzz.grounds import Ground, Killed, Refusal
from tests.fuzz.model import TOP, Record, Shard, Stream, When

ITERATORS = ["TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP"]
LIFETIME = 300.0
"""Seconds for which an iterator is good."""
MIB = 2**20


@dataclass
class Reader:
    """Reader of a shard.

    Attributes:
        iterator: Position according to the server.
        position: Position according to the model: an index among the shard's records.
        issued: Time at which the iterator was issued.
    """

    stream: Stream
    shard: Shard
    iterator: str
    position: int
    issued: When


class History:
    """A random sequence of requests and kills, compared with the model.

    Args:
        ground: The server to run it on.
        seed: Seed of all random choices.
    """

    def __init__(self, ground: Ground, seed: int) -> None:
        self.ground = ground
        self.random = random.Random(seed)
        self.streams: dict[str, Stream] = {}
        self.due: dict[str, tuple[float, Callable[[], None]]] = {}
        """By stream that is CREATING, UPDATING or DELETING: the latest end of that state, and the action due then."""
        self.readers: list[Reader] = []
        self.doubt: Callable[[], None] | None = None
        """Finds out the result of the request that was in flight."""
        self.serial = 0
        self.steps: Counter[str] = Counter()

    def step(self) -> None:
        """Let one thing happen."""
        name = self.random.choice(["a", "b"])
        self.settle()
        if name not in self.streams:
            self.create(name)
            return
        stream = self.streams[name]
        actions: list[Callable[[Stream], None]] = [
            self.put_record,
            self.put_records,
            self.put_records,
            self.start_reading,
            self.start_reading,
            self.read,
            self.read,
            self.read,
            self.let_pass,
            self.split,
            self.merge,
            self.scale,
            self.change_retention,
            self.check,
            self.delete,
        ]
        weights = [4, 6, 6, 4, 4, 4, 4, 4, 4, 3, 3, 1, 1, 1, 0.3]
        (action,) = self.random.choices(actions, weights)
        self.steps[action.__name__] += 1
        action(stream)
        self.doubt = None

    def end(self) -> None:
        """Check everything."""
        while self.due:
            self.ground.let_pass(self.ground.transition)
            self.settle()
        for stream in self.streams.values():
            self.check(stream)

    def recover(self) -> None:
        """Continue after a kill. Settle the doubt, then check everything."""
        self.settle()
        if self.doubt is not None:
            self.doubt()
            self.doubt = None
        self.settle()
        for stream in list(self.streams.values()):
            self.check(stream)

    # Effects of time.

    def when(self, early: float, late: float | None = None) -> When:
        """Return two moments, in seconds, as the model has them."""
        return When(int(early * 1000), int((self.ground.now() if late is None else late) * 1000))

    def settle(self) -> None:
        """Apply the transitions that are over by now."""
        for name, (due, done) in list(self.due.items()):
            if self.ground.now() >= due:
                del self.due[name]
                try:
                    done()
                except Killed:
                    self.due[name] = due, done  # it can be looked at after the restart
                    raise

    def begin(self, stream: Stream, asked: float, done: Callable[[When], None]) -> None:
        """Note that a stream is in transition, after a request that was made at `asked`."""
        late = self.ground.now()
        span = self.when(asked + self.ground.transition, late + self.ground.transition)
        self.due[stream.name] = (late + self.ground.transition, lambda: done(span))

    def let_pass(self, stream: Stream) -> None:
        """Let time pass: moments, minutes or hours, but no longer than a transition lasts at a time."""
        seconds = self.random.choice([0.001, 0.01, 0.3, 1.0, 6.0, 61.0, 290.0, 3600.0, 5 * 3600.0, 25 * 3600.0])
        if self.due:
            seconds = min(seconds, max(0.0, min(due for due, _ in self.due.values()) - self.ground.now()) + 0.001)
        self.ground.let_pass(seconds)

    def tried(self, operation: str, **params: Any) -> Any:
        """Return an answer, or the refusal."""
        try:
            return self.ground.ask(operation, params)
        except Refusal as refusal:
            return refusal

    def asked(self, operation: str, **params: Any) -> Any:
        """Return an answer or a refusal, as soon as quotas let it be said."""
        while True:
            answer = self.tried(operation, **params)
            if not (isinstance(answer, Refusal) and answer.text.startswith("Rate exceeded")):
                return answer
            assert self.ground.quotas
            self.ground.let_pass(1.0)
            self.settle()

    def ask(self, operation: str, **params: Any) -> Any:
        """Return the response to a request that must not be refused."""
        answer = self.asked(operation, **params)
        assert not isinstance(answer, Refusal), (operation, params, answer)
        return answer

    def refused(self, code: str, operation: str, **params: Any) -> None:
        """Make a request that must be refused with a code."""
        answer = self.asked(operation, **params)
        assert isinstance(answer, Refusal), (operation, params, answer)
        assert answer.code == code, answer

    def exists(self, name: str) -> bool:
        """Return whether there is a stream of this name."""
        answer = self.asked("DescribeStreamSummary", StreamName=name)
        if isinstance(answer, Refusal):
            assert answer.code == "ResourceNotFoundException", answer
            return False
        return True

    # Streams.

    def create(self, name: str) -> None:
        count = self.random.choice([1, 1, 2, 3, 5])
        asked = self.ground.now()
        stream = Stream(name)

        def made(span: When) -> None:
            fresh = stream.learn(self.listed(stream), span, asked)
            assert len(fresh) == count
            assert not any(shard.parents for shard in fresh)
            sizes = [shard.high - shard.low for shard in fresh]
            assert max(sizes) - min(sizes) <= 1

        def perhaps() -> None:
            if self.exists(name):
                self.streams[name] = stream
                made(self.when(asked))

        self.doubt = perhaps
        self.ask("CreateStream", StreamName=name, ShardCount=count)
        self.doubt = None
        self.streams[name] = stream
        self.begin(stream, asked, made)
        if self.ground.transition:
            self.refused("ResourceNotFoundException", "PutRecord", StreamName=name, PartitionKey="k", Data="")
            while name in self.due:
                self.let_pass(stream)
                self.settle()

    def delete(self, stream: Stream) -> None:
        if self.busy(stream):
            return
        self.ground.let_pass(0.01)  # the next stream of this name is made in another millisecond

        def gone(_: When) -> None:
            self.refused("ResourceNotFoundException", "ListShards", StreamName=stream.name)
            del self.streams[stream.name]

        def perhaps() -> None:
            if not self.exists(stream.name):
                del self.streams[stream.name]

        asked = self.ground.now()
        self.doubt = perhaps
        self.ask("DeleteStream", StreamName=stream.name)
        self.doubt = None
        self.begin(stream, asked, gone)
        while stream.name in self.due:
            self.ground.let_pass(self.ground.transition + 0.001)
            self.settle()

    def busy(self, stream: Stream) -> bool:
        """Return whether a stream is in transition: then it refuses to be changed, of which the test makes sure."""
        if stream.name not in self.due:
            return False
        shard = self.random.choice(stream.open())
        at = str(shard.high // 2)
        answer = self.tried("SplitShard", StreamName=stream.name, ShardToSplit=shard.id, NewStartingHashKey=at)
        assert isinstance(answer, Refusal), "a stream was changed that is being changed"
        assert answer.code == "ResourceInUseException" or answer.text.startswith("Rate exceeded"), answer
        return True

    # Shards.

    def listed(self, stream: Stream) -> list[dict[str, Any]]:
        """Return all shards, by pages."""
        size = self.random.choice([1, 2, 3, 1000])
        answer = self.ask("ListShards", StreamName=stream.name, MaxResults=size)
        shards = list(answer["Shards"])
        while "NextToken" in answer:
            answer = self.ask("ListShards", NextToken=answer["NextToken"], MaxResults=size)
            shards += answer["Shards"]
        return shards

    def reshard(self, stream: Stream, operation: str, must: Callable[[list[Shard]], None], **params: Any) -> None:
        """Ask for other shards. `must` looks at the new ones once they are there."""
        asked = self.ground.now()
        before = len(stream.shards)

        def done(span: When) -> None:
            stream.age(self.when(self.ground.now()))
            must(stream.learn(self.listed(stream), span, span.early / 1000))

        def perhaps() -> None:
            stream.age(self.when(self.ground.now()))
            span = self.when(asked)
            fresh = stream.learn(self.listed(stream), span, span.early / 1000)
            if fresh:
                must(fresh)
            else:
                assert len(stream.shards) == before

        self.doubt = perhaps
        answer = self.asked(operation, StreamName=stream.name, **params)
        self.doubt = None
        if isinstance(answer, Refusal):
            assert "limit of 10 UpdateShardCount" in answer.text, answer
        else:
            self.begin(stream, asked, done)

    def split(self, stream: Stream) -> None:
        if self.busy(stream):
            return
        shard = self.random.choice(stream.open())
        if shard.high - shard.low < 5 or len(stream.open()) > 30:
            return
        at = self.random.choice([(shard.low + shard.high) // 2, shard.low + 2, shard.high - 1])

        def must(fresh: list[Shard]) -> None:
            low, high = fresh
            assert (low.low, low.high, high.low, high.high) == (shard.low, at - 1, at, shard.high)
            assert low.parents == high.parents == [shard.id]

        self.reshard(stream, "SplitShard", must, ShardToSplit=shard.id, NewStartingHashKey=str(at))

    def merge(self, stream: Stream) -> None:
        if self.busy(stream):
            return
        shards = stream.open()
        if len(shards) == 1:
            return
        at = self.random.randrange(len(shards) - 1)
        first, second = self.random.sample(shards[at : at + 2], 2)

        def must(fresh: list[Shard]) -> None:
            (child,) = fresh
            assert child.parents == [first.id, second.id]

        self.reshard(stream, "MergeShards", must, ShardToMerge=first.id, AdjacentShardToMerge=second.id)

    def scale(self, stream: Stream) -> None:
        if self.busy(stream):
            return
        current = len(stream.open())
        target = self.random.randint((current + 1) // 2, min(20, current * 2)) if current <= 20 else current - 1

        def must(fresh: list[Shard]) -> None:
            sizes = [shard.high - shard.low for shard in stream.open()]
            assert len(sizes) == target
            assert max(sizes) - min(sizes) <= 1

        self.reshard(stream, "UpdateShardCount", must, TargetShardCount=target, ScalingType="UNIFORM_SCALING")

    def change_retention(self, stream: Stream) -> None:
        if self.busy(stream):
            return
        hours = self.random.choice([24, 25, 48, 168])
        if hours == stream.retention:
            return
        kind = "Increase" if hours > stream.retention else "Decrease"
        asked = self.ground.now()

        def done(span: When) -> None:
            stream.age(span)  # by the retention that there was
            stream.retention = hours

        def perhaps() -> None:
            summary = self.ask("DescribeStreamSummary", StreamName=stream.name)["StreamDescriptionSummary"]
            assert summary["RetentionPeriodHours"] in (hours, stream.retention)
            if summary["RetentionPeriodHours"] == hours:
                done(self.when(asked))

        self.doubt = perhaps
        self.ask(f"{kind}StreamRetentionPeriod", StreamName=stream.name, RetentionPeriodHours=hours)
        self.doubt = None
        self.begin(stream, asked, done)

    # Records, in.

    def entry(self, size: int) -> tuple[dict[str, Any], int, int]:
        """Return a record that is like no other, its hash key and its size."""
        self.serial += 1
        key = self.random.choice(["k", "ä🎈", str(self.random.random()), str(self.serial)])
        data = f"{self.serial}:".encode() + bytes(size)
        entry = {"PartitionKey": key, "Data": base64.b64encode(data).decode()}
        size = len(data) + len(key.encode())
        if self.random.random() < 0.3:
            hash_key = self.random.choice([0, TOP, self.random.getrandbits(128)])
            return entry | {"ExplicitHashKey": str(hash_key)}, hash_key, size
        return entry, int.from_bytes(md5(key.encode()).digest(), "big"), size

    def took(
        self, stream: Stream, entry: dict[str, Any], hash_key: int, size: int, answer: dict[str, Any], asked: float
    ) -> None:
        """Note a record that was acknowledged."""
        shard = stream.owner(hash_key)
        assert answer["ShardId"] == shard.id
        number = int(answer["SequenceNumber"])
        assert number > shard.newest()
        shard.records.append(Record(number, entry["PartitionKey"], entry["Data"], size, self.when(asked)))
        shard.taken += size
        if self.ground.quotas:
            lived = self.ground.now() - shard.made
            assert shard.taken <= 10 * MIB + lived * MIB + 1
            assert len(shard.records) <= 1000 + lived * 1000 + 1

    def wait_for(self, stream: Stream, sent: list[tuple[dict[str, Any], int, int]], asked: float) -> Callable[[], None]:
        """Return a function that finds out whether unacknowledged records were written, either all or none of them."""

        def perhaps() -> None:
            found = 0
            for shard in stream.open():
                mine = [sending for sending in sent if stream.owner(sending[1]) is shard]
                extra = self.all_records(stream, shard)[len(self.alive(stream, shard)) :]
                assert [record["Data"] for record in extra] in ([], [entry["Data"] for entry, _, _ in mine])
                for record, (_, _, size) in zip(extra, mine, strict=False):
                    number = int(record["SequenceNumber"])
                    assert number > shard.newest()
                    arrived = self.when(asked)
                    shard.records.append(Record(number, record["PartitionKey"], record["Data"], size, arrived))
                found += len(extra)
            assert found in (0, len(sent)), "a put was done in part"

        return perhaps

    def put_record(self, stream: Stream) -> None:
        entry, hash_key, size = self.entry(self.random.choice([0, 10, 1000, 1000, 200_000]))
        asked = self.ground.now()
        self.doubt = self.wait_for(stream, [(entry, hash_key, size)], asked)
        ordering = {}
        shard = stream.owner(hash_key)
        if shard.records and self.random.random() < 0.3:
            ordering = {"SequenceNumberForOrdering": str(self.random.choice(shard.records).number)}
        answer = self.tried("PutRecord", StreamName=stream.name, **entry, **ordering)
        if isinstance(answer, Refusal):
            assert self.ground.quotas
            assert answer.code == "ProvisionedThroughputExceededException", answer
        else:
            self.took(stream, entry, hash_key, size, answer, asked)

    def put_records(self, stream: Stream) -> None:
        count = self.random.choice([1, 2, 3, 5, 10, 20, 60, 500])
        size = self.random.choice([0, 0, 10, 10, 300])
        if self.random.random() < 0.05:
            size, count = 15_000, max(count, 100)
        sent = [self.entry(size) for _ in range(count)]
        asked = self.ground.now()
        self.doubt = self.wait_for(stream, sent, asked)
        answer = self.ask("PutRecords", StreamName=stream.name, Records=[entry for entry, _, _ in sent])
        failed = 0
        for (entry, hash_key, weight), result in zip(sent, answer["Records"], strict=True):
            if "ErrorCode" in result:
                failed += 1
                assert self.ground.quotas
                assert result["ErrorCode"] == "ProvisionedThroughputExceededException"
                assert result["ErrorMessage"].startswith(f"Rate exceeded for shard {stream.owner(hash_key).id} ")
            else:
                self.took(stream, entry, hash_key, weight, result, asked)
        assert answer["FailedRecordCount"] == failed
        self.steps["refused by quotas"] += failed

    # Records, out.

    def alive(self, stream: Stream, shard: Shard) -> list[Record]:
        """Return the records of a shard that may be there now."""
        stream.age(self.when(self.ground.now()))
        return [record for record in shard.records if record.arrived.late >= stream.gone_before]

    def start_reading(self, stream: Stream) -> None:
        shard = self.random.choice(list(stream.shards.values()))
        self.readers = [*self.readers[-10:], *self.reader(stream, shard, self.random.choice(ITERATORS))]

    def reader(self, stream: Stream, shard: Shard, kind: str) -> list[Reader]:
        """Return a list of one reader of a shard. Empty if there is no valid position, or if the shard may be gone."""
        stream.age(self.when(self.ground.now()))
        if shard.closed is not None and shard.closed.early < stream.kept_from:
            if shard.closed.late < stream.gone_before:
                place = {"StreamName": stream.name, "ShardId": shard.id, "ShardIteratorType": "LATEST"}
                self.refused("ResourceNotFoundException", "GetShardIterator", **place)
            return []
        params: dict[str, Any] = {}
        position = len(shard.records) if kind == "LATEST" else 0
        if kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
            position = self.random.randrange(-1, len(shard.records))
            number = shard.first_number if position < 0 else shard.records[position].number
            params["StartingSequenceNumber"] = str(number)
            position = max(0, position + (kind == "AFTER_SEQUENCE_NUMBER"))
        elif kind == "AT_TIMESTAMP":
            known = [record for record in shard.records if record.arrived.early == record.arrived.late]
            if not known:
                return []
            moment = self.random.choice(known).arrived.early + self.random.choice([0, 0, 1])
            if moment > self.ground.now() * 1000:
                return []
            params["Timestamp"] = moment / 1000
            late = [record.arrived.late >= moment for record in shard.records]
            if late != [record.arrived.early >= moment for record in shard.records]:
                return []
            position = late.index(True) if True in late else len(shard.records)
        asked = self.ground.now()
        answer = self.ask(
            "GetShardIterator", StreamName=stream.name, ShardId=shard.id, ShardIteratorType=kind, **params
        )
        self.steps[kind] += 1
        asked = asked if not self.ground.quotas else self.ground.now()
        return [Reader(stream, shard, answer["ShardIterator"], position, self.when(asked))]

    def read(self, stream: Stream) -> None:
        """Let somebody read on."""
        if self.readers:
            reader = self.readers.pop(self.random.randrange(len(self.readers)))
            if self.go_on(reader, self.random.choice([1, 2, 7, 100, 10_000])):
                self.readers.append(reader)

    def go_on(self, reader: Reader, limit: int) -> bool:
        """Read once. Return whether there may be more to read."""
        stream = reader.stream
        while True:
            self.settle()
            asked = self.ground.now()
            answer = self.tried("GetRecords", ShardIterator=reader.iterator, Limit=limit)
            if not (isinstance(answer, Refusal) and answer.text.startswith("Rate exceeded")):
                break
            assert self.ground.quotas
            self.ground.let_pass(1.0)
        if isinstance(answer, Refusal):
            self.steps[answer.code] += 1
            if answer.code == "ExpiredIteratorException":
                assert self.ground.now() - reader.issued.early / 1000 > LIFETIME
            else:
                assert answer.code == "ResourceNotFoundException", answer
                assert self.streams.get(stream.name) is not stream, answer
            return False
        assert asked - reader.issued.late / 1000 <= LIFETIME, "it should have expired"
        assert self.streams.get(stream.name) is stream
        self.compare(reader, answer, limit, asked)
        reader.iterator, reader.issued = answer.get("NextShardIterator", ""), self.when(asked)
        return "NextShardIterator" in answer

    def compare(self, reader: Reader, answer: dict[str, Any], limit: int, asked: float) -> None:
        """Hold an answer of GetRecords to the model, and move the reader on."""
        stream, shard, records = reader.stream, reader.shard, answer["Records"]
        now = self.when(asked)
        stream.age(now)
        start = reader.position
        while start < len(shard.records) and shard.records[start].arrived.late < stream.gone_before:
            start += 1
        sure = start
        while sure < len(shard.records) and shard.records[sure].arrived.early < stream.kept_from:
            sure += 1
        if records:
            number = int(records[0]["SequenceNumber"])
            assert number in [record.number for record in shard.records[start : sure + 1]], "lost, or too old"
            while shard.records[start].number != number:
                start += 1
        else:
            assert sure == len(shard.records), "lost"
            start = sure
        assert len(records) <= limit
        size = 0
        for told, record in zip(records, shard.records[start : start + len(records)], strict=True):
            assert (int(told["SequenceNumber"]), told["PartitionKey"]) == (record.number, record.key)
            assert told["Data"] == record.data
            arrived = round(told["ApproximateArrivalTimestamp"] * 1000)
            assert record.arrived.early <= arrived <= record.arrived.late
            record.arrived = When(arrived, arrived)
            size += record.size
        arrivals = [told["ApproximateArrivalTimestamp"] for told in records]
        assert arrivals == sorted(arrivals)
        end = reader.position = start + len(records)
        if len(records) < limit and end < len(shard.records):
            assert size + shard.records[end].size > 10 * MIB, "it stopped early"
        if end == len(shard.records):
            assert answer["MillisBehindLatest"] == 0
        else:
            behind = When(
                max(1, now.early - shard.records[end - 1].arrived.late),  # 0 would mean that no records follow
                max(1, now.late - shard.records[end - 1].arrived.early),
            )
            assert behind.early <= answer["MillisBehindLatest"] <= behind.late
        if shard.closed is not None and end == len(shard.records):
            assert "NextShardIterator" not in answer
            told_children = [(child["ShardId"], child["ParentShards"]) for child in answer["ChildShards"]]
            assert told_children == [(child.id, child.parents) for child in stream.children(shard)]
        else:
            assert "NextShardIterator" in answer
            assert "ChildShards" not in answer

    def all_records(self, stream: Stream, shard: Shard) -> list[dict[str, Any]]:
        """Return the records of a shard, without use of the model."""
        place = {"StreamName": stream.name, "ShardId": shard.id, "ShardIteratorType": "TRIM_HORIZON"}
        iterator = self.ask("GetShardIterator", **place)["ShardIterator"]
        records: list[dict[str, Any]] = []
        while iterator:
            answer = self.ask("GetRecords", ShardIterator=iterator)
            records += answer["Records"]
            iterator = answer.get("NextShardIterator") if answer["MillisBehindLatest"] else None
        return records

    def check(self, stream: Stream) -> None:
        """Compare all that a stream has with the model."""
        if stream.name in self.due:
            return
        now = self.ground.now()
        listed = self.listed(stream)
        stream.age(self.when(now))
        assert stream.learn(listed, When(0, 0), now) == []
        filtered = self.ask("ListShards", StreamName=stream.name, ShardFilter={"Type": "AT_LATEST"})["Shards"]
        assert {told["ShardId"] for told in filtered} == {shard.id for shard in stream.open()}
        for shard in stream.shards.values():
            for reader in self.reader(stream, shard, "TRIM_HORIZON"):
                while self.go_on(reader, 10_000) and reader.position < len(shard.records):
                    pass

"""The operations: AWS's arguments, rules and texts on one side, state and store on the other.

Each request first lets time pass (`State.advance`). Between the state's decision and the handing of its events to the
store nothing is awaited, so the order in the store is the order of the decisions.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import md5
from typing import Any, NamedTuple, TypeVar

import msgspec

from kinstream import service_quotas
from kinstream.clock import Clock
from kinstream.local import answers, constraints, requests, sequence
from kinstream.local.refusal import Refused, in_use, invalid, not_found
from kinstream.local.state import (
    ACCOUNT,
    ON_DEMAND_SHARDS,
    Event,
    Shard,
    State,
    Status,
    Stream,
    shard_id,
)
from kinstream.local.store import Chunk, Store, Write, pack
from kinstream.local.tokens import Iterator, Sealer, ShardsPage, StreamsPage
from kinstream.sharding.hashkey import parse_hash_key

Request = TypeVar("Request", bound=msgspec.Struct)

TOKEN_LIFETIME = 300.0
"""Seconds for which a page token is good (API reference, `ListShards`)."""

DESCRIBE_SHARDS = 100
"""Shards in one DescribeStream answer (API reference, `DescribeStream`)."""

LIST_STREAMS = 100
"""Streams in one ListStreams answer where no limit is given (API reference, `ListStreams`)."""

_ARN = re.compile(service_quotas.STREAM_ARN_PATTERN)
_MAX_MILLIS = 2**53
_NONE = "NONE"


class Call(NamedTuple):
    """What an operation knows of its request besides the arguments."""

    region: str
    """The signature's: the streams are the same in every region, their ARNs say the one that was asked."""
    now: float
    """Seconds since 1970."""


class Operations:
    """Answers requests.

    Args:
        state: The streams.
        store: Where events and records are kept.
        clock: Dates all that happens.
    """

    def __init__(self, state: State, store: Store, clock: Clock) -> None:
        self._state = state
        self._store = store
        self._clock = clock
        self._sealer = Sealer(store.key)
        self._table: dict[str, tuple[type[Any], Callable[[Any, Call], Awaitable[msgspec.Struct | None]]]] = {
            "CreateStream": (requests.CreateStream, self.create_stream),
            "DeleteStream": (requests.StreamRequest, self.delete_stream),
            "DescribeStream": (requests.DescribeStream, self.describe_stream),
            "DescribeStreamSummary": (requests.StreamRequest, self.describe_stream_summary),
            "GetRecords": (requests.GetRecords, self.get_records),
            "GetShardIterator": (requests.GetShardIterator, self.get_shard_iterator),
            "ListShards": (requests.ListShards, self.list_shards),
            "ListStreams": (requests.ListStreams, self.list_streams),
            "MergeShards": (requests.MergeShards, self.merge_shards),
            "PutRecord": (requests.PutRecord, self.put_record),
            "PutRecords": (requests.PutRecords, self.put_records),
            "SplitShard": (requests.SplitShard, self.split_shard),
        }

    def shape(self, operation: str) -> type[msgspec.Struct] | None:
        """Return the type of an operation's request, or None where there is no such operation."""
        entry = self._table.get(operation)
        return entry[0] if entry else None

    async def call(self, operation: str, request: msgspec.Struct, region: str) -> msgspec.Struct | None:
        """Answer a request; None is an answer without a body.

        Raises:
            Refused: AWS would refuse it.
            OSError: The store failed.
        """
        constraints.check(request)
        now = self._clock.wall()
        events = self._state.advance(now)
        if events:
            await self._keep(events)
        return await self._table[operation][1](request, Call(region, now))

    # Streams

    async def create_stream(self, request: requests.CreateStream, call: Call) -> None:
        """CreateStream."""
        details = request.stream_mode_details
        on_demand = details is not None and details.stream_mode == "ON_DEMAND"
        if on_demand and request.shard_count is not None:
            raise Refused("ValidationException", "ShardCount must not be specified for a stream in ON_DEMAND mode.")
        if not on_demand and request.shard_count is None:
            raise Refused("ValidationException", "ShardCount must be specified for a stream in PROVISIONED mode.")
        await self._keep(
            self._state.create(
                request.stream_name or "",
                request.shard_count or ON_DEMAND_SHARDS,
                call.now,
                on_demand=on_demand,
                max_record_kib=request.max_record_size_in_ki_b,
            )
        )

    async def delete_stream(self, request: requests.StreamRequest, call: Call) -> None:
        """DeleteStream."""
        await self._keep(self._state.delete(_name(request), call.now))

    async def describe_stream(self, request: requests.DescribeStream, call: Call) -> answers.DescribeStream:
        """DescribeStream."""
        stream = self._state.stream(_name(request))
        shards = self._visible(stream)
        if request.exclusive_start_shard_id is not None:
            after = self._index(request.exclusive_start_shard_id)
            shards = [shard for shard in shards if shard.index > after]
        page = shards[: min(request.limit or DESCRIBE_SHARDS, DESCRIBE_SHARDS)]
        return answers.DescribeStream(
            answers.StreamDescription(
                stream_name=stream.name,
                stream_arn=_arn(stream, call),
                stream_status=stream.settings.status.value,
                stream_mode_details=_mode(stream),
                shards=[_shard(shard) for shard in page],
                has_more_shards=len(page) < len(shards),
                retention_period_hours=stream.settings.retention_hours,
                stream_creation_timestamp=stream.settings.created / 1000,
                enhanced_monitoring=[answers.EnhancedMetrics([])],
                encryption_type=_NONE,
            )
        )

    async def describe_stream_summary(
        self, request: requests.StreamRequest, call: Call
    ) -> answers.DescribeStreamSummary:
        """DescribeStreamSummary."""
        stream = self._state.stream(_name(request))
        return answers.DescribeStreamSummary(
            answers.StreamDescriptionSummary(
                stream_name=stream.name,
                stream_arn=_arn(stream, call),
                stream_status=stream.settings.status.value,
                stream_mode_details=_mode(stream),
                retention_period_hours=stream.settings.retention_hours,
                stream_creation_timestamp=stream.settings.created / 1000,
                enhanced_monitoring=[answers.EnhancedMetrics([])],
                encryption_type=_NONE,
                open_shard_count=len([s for s in self._visible(stream) if s.closed is None]),
                consumer_count=0,
                max_record_size_in_ki_b=stream.settings.max_record_kib,
            )
        )

    async def list_streams(self, request: requests.ListStreams, call: Call) -> answers.ListStreams:
        """ListStreams."""
        after = request.exclusive_start_stream_name or ""
        if request.next_token is not None:
            if request.exclusive_start_stream_name is not None:
                raise invalid("NextToken and ExclusiveStartStreamName cannot be provided together.")
            page = self._sealer.open(request.next_token, StreamsPage)
            if page is None:
                raise invalid("NextToken is invalid.")
            self._check_token_age(page.issued, call)
            after = page.after
        names = sorted(name for name in self._state.streams if name > after)
        chosen = names[: request.limit or LIST_STREAMS]
        more = len(chosen) < len(names)
        streams = [self._state.streams[name] for name in chosen]
        return answers.ListStreams(
            stream_names=chosen,
            has_more_streams=more,
            stream_summaries=[
                answers.StreamSummary(
                    stream_name=stream.name,
                    stream_arn=_arn(stream, call),
                    stream_status=stream.settings.status.value,
                    stream_mode_details=_mode(stream),
                    stream_creation_timestamp=stream.settings.created / 1000,
                )
                for stream in streams
            ],
            next_token=self._sealer.seal(StreamsPage(chosen[-1], int(call.now * 1000))) if more else None,
        )

    # Shards

    async def list_shards(self, request: requests.ListShards, call: Call) -> answers.ListShards:
        """ListShards."""
        page = self._shards_page(request, call)
        stream = self._state.stream(page.stream)
        if stream.settings.created != page.created:
            raise not_found(f"Stream {page.stream} under account {ACCOUNT} not found.")
        if stream.settings.status is Status.CREATING:
            raise in_use(f"Stream {stream.name} under account {ACCOUNT} not ACTIVE, instead in state CREATING")
        shards = [s for s in _filtered(stream, page, call.now) if s.index > page.after]
        limit = min(
            request.max_results or service_quotas.LIST_SHARDS_MAX_RESULTS, service_quotas.LIST_SHARDS_MAX_RESULTS
        )
        chosen = shards[:limit]
        more = len(chosen) < len(shards)
        token = msgspec.structs.replace(page, after=chosen[-1].index, issued=int(call.now * 1000)) if more else None
        return answers.ListShards(
            shards=[_shard(shard) for shard in chosen],
            next_token=self._sealer.seal(token) if token else None,
        )

    async def split_shard(self, request: requests.SplitShard, call: Call) -> None:
        """SplitShard."""
        name, shard = _name(request), request.shard_to_split or ""
        await self._keep(self._state.split(name, shard, request.new_starting_hash_key or "", call.now))

    async def merge_shards(self, request: requests.MergeShards, call: Call) -> None:
        """MergeShards."""
        first, second = request.shard_to_merge or "", request.adjacent_shard_to_merge or ""
        await self._keep(self._state.merge(_name(request), first, second, call.now))

    # Records

    async def put_record(self, request: requests.PutRecord, call: Call) -> answers.PutRecord:
        """PutRecord."""
        stream = self._state.readable(_name(request))
        key, data = request.partition_key or "", request.data or b""
        hash_key, size = _weigh(key, data, request.explicit_hash_key)
        limit = stream.settings.max_record_kib * 1024
        if size > limit:
            raise constraints_broken("data", data, f"Member must have length less than or equal to {limit}")
        if request.sequence_number_for_ordering is not None:
            self._check_ordering(stream, request.sequence_number_for_ordering)
        _check_rehearsal(request)
        ((shard, first, arrival, _),) = self._state.place(stream, [hash_key], call.now)
        number = sequence.number(shard.origin, first, arrival // 1000, shard.index)
        await self._keep([Chunk(shard.number, first, arrival, 1, size, pack([(key, data)]))])
        return answers.PutRecord(shard.id, str(number), _NONE)

    async def put_records(self, request: requests.PutRecords, call: Call) -> answers.PutRecords:
        """PutRecords."""
        stream = self._state.readable(_name(request))
        entries = request.records or []
        hash_keys, sizes = _weigh_all(entries, stream.settings.max_record_kib * 1024)
        _check_rehearsal(request)
        results: list[Any] = [None] * len(entries)
        chunks = []
        entry_answer = answers.PutRecordsEntry
        for shard, first, arrival, members in self._state.place(stream, hash_keys, call.now):
            number = sequence.number(shard.origin, first, arrival // 1000, shard.index)
            name = shard.id
            size = 0
            kept = []
            for member in members:
                entry = entries[member]
                kept.append((entry.partition_key, entry.data))
                size += sizes[member]
                results[member] = entry_answer(str(number), name)
                number += sequence.STEP
            chunks.append(Chunk(shard.number, first, arrival, len(members), size, pack(kept)))
        await self._keep(chunks)
        return answers.PutRecords(0, results, _NONE)

    async def get_shard_iterator(self, request: requests.GetShardIterator, call: Call) -> answers.GetShardIterator:
        """GetShardIterator."""
        stream = self._state.readable(_name(request))
        shard = self._state.shard(stream, request.shard_id or "")
        place = self._position(stream, shard, request, call)
        _check_rehearsal(request)
        return answers.GetShardIterator(self._iterator(stream, shard, place, call))

    async def get_records(self, request: requests.GetRecords, call: Call) -> answers.GetRecords:
        """GetRecords."""
        position = self._sealer.open(request.shard_iterator or "", Iterator)
        if position is None or (request.stream_arn is not None and _name(request) != position.stream):
            raise invalid("Invalid ShardIterator.")
        _check_age(position.issued / 1000, call.now)
        stream = self._state.readable(position.stream)
        if stream.settings.created != position.created or position.shard_index >= len(stream.shards):
            name = shard_id(position.shard_index)
            raise not_found(f"Shard {name} in stream {stream.name} under account {ACCOUNT} does not exist")
        _check_rehearsal(request)
        shard = stream.shards[position.shard_index]
        return self._read(stream, shard, position.place, request.limit, call)

    def _read(self, stream: Stream, shard: Shard, place: int, limit: int | None, call: Call) -> answers.GetRecords:
        horizon = stream.horizon(call.now)
        most = limit or service_quotas.GET_RECORDS_MAX_RECORDS
        size = service_quotas.GET_RECORDS_MAX_BYTES
        slices = self._store.read(shard.number, place, limit=most, size=size)
        if slices and slices[0].arrival < horizon:
            place = self._store.find(shard.number, horizon)
            slices = self._store.read(shard.number, place, limit=most, size=size)
        records = []
        record_answer = answers.ReadRecord
        for first, arrival, kept in slices:
            number = sequence.number(shard.origin, first, arrival // 1000, shard.index)
            seconds = arrival / 1000
            for record in kept:
                records.append(record_answer(str(number), seconds, record.data, record.partition_key, _NONE))
                number += sequence.STEP
            place = first + len(kept)
        tip = self._store.tip(shard.number)
        if not slices:
            place = max(place, tip.place + 1)
        behind = 0
        if slices and place <= tip.place:
            behind = max(0, int(call.now * 1000) - slices[-1].arrival)
        answer = answers.GetRecords(records, behind)
        if shard.ending_place is not None and place >= shard.ending_place:
            answer.child_shards = [_child(child) for child in stream.children(shard)]
        else:
            answer.next_shard_iterator = self._iterator(stream, shard, place, call)
        return answer

    # What they share

    async def _keep(self, writes: list[Event] | list[Chunk]) -> None:
        if writes:
            kept: list[Write] = [*writes]
            await self._store.write(kept)

    def _visible(self, stream: Stream) -> list[Shard]:
        """Return the shards that a description shows: none while the stream is being made."""
        return [] if stream.settings.status is Status.CREATING else stream.shards

    def _index(self, name: str) -> int:
        digits = name.removeprefix("shardId-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 12):
            raise invalid(f"ExclusiveStartShardId {name} is not a shard id.")
        return int(digits)

    def _iterator(self, stream: Stream, shard: Shard, place: int, call: Call) -> str:
        return self._sealer.seal(
            Iterator(stream.name, stream.settings.created, shard.index, place, int(call.now * 1000))
        )

    def _position(self, stream: Stream, shard: Shard, request: requests.GetShardIterator, call: Call) -> int:
        """Return the place at which an iterator starts."""
        kind, number, timestamp = request.shard_iterator_type, request.starting_sequence_number, request.timestamp
        if kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
            if number is None or timestamp is not None:
                raise _wrong_iterator(kind, number, timestamp)
            place = self._place(stream, shard, number)
            return place if kind == "AT_SEQUENCE_NUMBER" else place + 1
        if number is not None:
            raise _wrong_iterator(kind, number, timestamp)
        if kind == "AT_TIMESTAMP":
            if timestamp is None:
                raise invalid(
                    "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. "
                    "Current request has no timestamp parameter."
                )
            now = int(call.now * 1000)
            millis = _millis(timestamp)
            if millis > now:
                raise invalid(
                    "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                    f"timestampInMillis: {millis}, currentTimestampInMillis: {now}"
                )
            return self._store.find(shard.number, millis)
        if timestamp is not None:
            raise _wrong_iterator(kind, number, timestamp)
        return 1 if kind == "TRIM_HORIZON" else self._store.tip(shard.number).place + 1

    def _place(self, stream: Stream, shard: Shard, number: str) -> int:
        """Return the place that a sequence number names in a shard. Raises Refused where it is not of that shard."""
        what = (
            f"StartingSequenceNumber {number} used in GetShardIterator on shard {shard.id} in stream {stream.name} "
            f"under account {ACCOUNT} is invalid"
        )
        parsed = sequence.parse(number)
        if parsed is None:
            raise invalid(f"{what}.")
        if parsed.shard_index != shard.index:
            raise invalid(
                f"Invalid StartingSequenceNumber. It encodes {shard_id(parsed.shard_index)}, "
                f"while it was used in a call to a shard with {shard.id}"
            )
        if parsed.origin != shard.origin or parsed.place > shard.last_place + 1:
            raise invalid(f"{what} because it did not come from this stream.")
        return parsed.place

    def _check_ordering(self, stream: Stream, number: str) -> None:
        parsed = sequence.parse(number)
        shards = stream.shards
        if (
            parsed is None
            or parsed.shard_index >= len(shards)
            or parsed.origin != shards[parsed.shard_index].origin
            or parsed.place > shards[parsed.shard_index].last_place
        ):
            raise invalid(
                f"ExclusiveMinimumSequenceNumber {number} used in PutRecord on stream {stream.name} "
                f"under account {ACCOUNT} is invalid."
            )

    def _shards_page(self, request: requests.ListShards, call: Call) -> ShardsPage:
        """Return what to list: from the token, or as the request says."""
        if request.next_token is not None:
            for name, value in (
                ("StreamName", request.stream_name),
                ("StreamARN", request.stream_arn),
                ("StreamCreationTimestamp", request.stream_creation_timestamp),
                ("ExclusiveStartShardId", request.exclusive_start_shard_id),
                ("ShardFilter", request.shard_filter),
            ):
                if value is not None:
                    raise invalid(f"NextToken and {name} cannot be provided together.")
            page = self._sealer.open(request.next_token, ShardsPage)
            if page is None:
                raise invalid("NextToken is invalid.")
            self._check_token_age(page.issued, call)
            return page
        if request.stream_name is None and request.stream_arn is None:
            raise invalid("Either NextToken or StreamName should be provided.")
        stream = self._state.stream(_name(request))
        created = request.stream_creation_timestamp
        if created is not None and _millis(created) // 1000 != stream.settings.created // 1000:
            raise not_found(f"Stream {stream.name} under account {ACCOUNT} not found.")
        after = -1 if request.exclusive_start_shard_id is None else self._index(request.exclusive_start_shard_id)
        kind, timestamp = None, None
        wanted = request.shard_filter
        if wanted is not None:
            kind, timestamp = wanted.type, wanted.timestamp
            if (kind == "AFTER_SHARD_ID") != (wanted.shard_id is not None):
                raise invalid("ShardFilter: ShardId must be specified with type AFTER_SHARD_ID, and with no other.")
            if (kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP")) != (timestamp is not None):
                raise invalid(
                    "ShardFilter: Timestamp must be specified with types AT_TIMESTAMP and FROM_TIMESTAMP, and with no other."
                )
            if wanted.shard_id is not None:
                after = max(after, self._index(wanted.shard_id))
        return ShardsPage(stream.name, stream.settings.created, after, kind, timestamp, 0)

    def _check_token_age(self, issued: int, call: Call) -> None:
        if call.now - issued / 1000 > TOKEN_LIFETIME:
            raise Refused("ExpiredNextTokenException", "NextToken has expired.")


def constraints_broken(path: str, value: Any, rule: str) -> Refused:
    """Return the ValidationException for one problem."""
    return Refused("ValidationException", f"1 validation error detected: {constraints.problem(path, value, rule)}")


def _name(request: requests.StreamRequest) -> str:
    """Return the name of the stream that a request is about."""
    if request.stream_arn is None:
        if request.stream_name is None:
            raise invalid("Either StreamName or StreamARN should be provided.")
        return request.stream_name
    match = _ARN.fullmatch(request.stream_arn)
    if match is None:
        raise invalid(f"StreamARN {request.stream_arn} is invalid.")
    account, name = match[3], match[4]
    if account != ACCOUNT:
        raise not_found(f"Stream {name} under account {account} not found.")
    if request.stream_name not in (None, name):
        raise invalid("StreamName and StreamARN name different streams.")
    return name


def _arn(stream: Stream, call: Call) -> str:
    return f"arn:aws:kinesis:{call.region}:{ACCOUNT}:stream/{stream.name}"


def _mode(stream: Stream) -> answers.StreamModeDetails:
    return answers.StreamModeDetails("ON_DEMAND" if stream.settings.on_demand else "PROVISIONED")


def _range(shard: Shard) -> answers.HashKeyRange:
    return answers.HashKeyRange(str(int.from_bytes(shard.start, "big")), str(int.from_bytes(shard.end, "big")))


def _shard(shard: Shard) -> answers.ShardAnswer:
    return answers.ShardAnswer(
        shard_id=shard.id,
        hash_key_range=_range(shard),
        sequence_number_range=answers.SequenceNumberRange(shard.starting_number, shard.ending_number),
        parent_shard_id=None if shard.parent is None else shard_id(shard.parent),
        adjacent_parent_shard_id=None if shard.adjacent is None else shard_id(shard.adjacent),
    )


def _child(shard: Shard) -> answers.ChildShard:
    parents = [shard_id(index) for index in (shard.parent, shard.adjacent) if index is not None]
    return answers.ChildShard(shard.id, parents, _range(shard))


def _filtered(stream: Stream, page: ShardsPage, now: float) -> list[Shard]:
    """Return the shards that a filter lets through."""
    horizon = stream.horizon(now)
    kept = [s for s in stream.shards if s.closed is None or s.closed >= horizon]
    kind = page.filter_type
    if kind in (None, "AFTER_SHARD_ID", "FROM_TRIM_HORIZON"):
        return kept
    if kind == "AT_LATEST":
        return [s for s in kept if s.closed is None]
    moment = horizon if page.timestamp is None else max(horizon, _millis(page.timestamp))
    if kind == "FROM_TIMESTAMP":
        return [s for s in kept if s.closed is None or s.closed >= moment]
    return [s for s in kept if s.created <= moment and (s.closed is None or s.closed >= moment)]


def _millis(timestamp: float) -> int:
    """Return a request's timestamp in whole milliseconds."""
    if not abs(timestamp) < _MAX_MILLIS / 1000:
        raise Refused("SerializationException", "Timestamp out of range")
    return round(timestamp * 1000)


def _check_age(issued: float, now: float) -> None:
    if now - issued > service_quotas.SHARD_ITERATOR_LIFETIME:
        raise Refused(
            "ExpiredIteratorException",
            f"Iterator expired. The iterator was created at time {_date(issued)} while right now it is {_date(now)} "
            "which is further in the future than the tolerated delay of 300000 milliseconds.",
        )


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")


def _check_rehearsal(request: requests.DataRequest) -> None:
    if request.dry_run:
        raise Refused("DryRunOperationException", "Request would have succeeded, but DryRun flag is set.")


def _wrong_iterator(kind: str | None, number: str | None, timestamp: float | None) -> Refused:
    return invalid(
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or "
        "(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. "
        f"Request specified {kind} and {'a' if number is not None else 'no'} StartingSequenceNumber"
        f"{' and also a Timestamp' if timestamp is not None else ''}."
    )


def _weigh(key: str, data: bytes, explicit: str | None) -> tuple[bytes, int]:
    """Return a record's hash key as 16 bytes, and its size. Raises Refused."""
    raw = key.encode()
    if explicit is None:
        hash_key = md5(raw, usedforsecurity=False).digest()
    else:
        number = parse_hash_key(explicit)
        if number is None:
            raise invalid(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. "
                f"Specified value was {explicit}"
            )
        hash_key = number.to_bytes(16, "big")
    return hash_key, len(raw) + len(data)


def _weigh_all(entries: list[requests.PutRecordsEntry], limit: int) -> tuple[list[bytes], list[int]]:
    """Return the hash keys and sizes of a put's records. Raises Refused where one of them is wrong, or all too large."""
    hash_keys, sizes = [], []
    total = 0
    for entry in entries:
        key, data = entry.partition_key, entry.data
        if key is None or data is None or not 0 < len(key) <= service_quotas.PARTITION_KEY_MAX_CHARACTERS:
            raise _wrong_entries(entries, limit)
        raw = key.encode()
        size = len(raw) + len(data)
        if size > limit:
            raise _wrong_entries(entries, limit)
        if entry.explicit_hash_key is None:
            hash_keys.append(md5(raw, usedforsecurity=False).digest())
        elif _HASH_KEY.fullmatch(entry.explicit_hash_key) is None:
            raise _wrong_entries(entries, limit)
        else:
            hash_keys.append(_weigh(key, data, entry.explicit_hash_key)[0])
        sizes.append(size)
        total += size
    if total > service_quotas.PUT_RECORDS_MAX_BYTES:
        raise invalid("Records size exceeds 10 MB limit")
    return hash_keys, sizes


_HASH_KEY = re.compile(r"0|[1-9][0-9]{0,38}")


def _wrong_entries(entries: list[requests.PutRecordsEntry], limit: int) -> Refused:
    """Return the refusal that tells all that is wrong with the records of a put."""
    found = []
    longest = service_quotas.PARTITION_KEY_MAX_CHARACTERS
    for position, entry in enumerate(entries, 1):
        path = f"records.{position}.member."
        key, data, explicit = entry.partition_key, entry.data, entry.explicit_hash_key
        if key is None:
            found.append(constraints.problem(f"{path}partitionKey", None, "Member must not be null"))
        elif not key:
            rule = "Member must have length greater than or equal to 1"
            found.append(constraints.problem(f"{path}partitionKey", key, rule))
        elif len(key) > longest:
            rule = f"Member must have length less than or equal to {longest}"
            found.append(constraints.problem(f"{path}partitionKey", key, rule))
        if explicit is not None and _HASH_KEY.fullmatch(explicit) is None:
            rule = r"Member must satisfy regular expression pattern: 0|([1-9]\d{0,38})"
            found.append(constraints.problem(f"{path}explicitHashKey", explicit, rule))
        if data is None:
            found.append(constraints.problem(f"{path}data", None, "Member must not be null"))
        elif len(data) + len((key or "").encode()) > limit:
            rule = f"Member must have length less than or equal to {limit}"
            found.append(constraints.problem(f"{path}data", data, rule))
    try:
        constraints.raise_problems(found)
    except Refused as refused:
        return refused

"""Records: put, and read from where a reader stands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from kinstream import service_quotas
from kinstream.local import answers, constraints, requests, sequence
from kinstream.local.entries import weigh, weigh_all, weigh_spread
from kinstream.local.kept import ACCOUNT, Shard, Stream, shard_id
from kinstream.local.naming import Call, millis, named_by, stream_name
from kinstream.local.quotas import Quotas
from kinstream.local.refusal import Refused, invalid, not_found
from kinstream.local.settings import encryption_type
from kinstream.local.shards import child_answer
from kinstream.local.state import Admit, State
from kinstream.local.store import Chunk, Store, pack
from kinstream.local.tokens import Iterator, Sealer

_TOO_MUCH = "ProvisionedThroughputExceededException"


class Records:
    """The operations of the data plane."""

    def __init__(self, state: State, store: Store, sealer: Sealer, quotas: Quotas | None) -> None:
        self._state = state
        self._store = store
        self._sealer = sealer
        self._quotas = quotas

    async def put_record(self, request: requests.PutRecord, call: Call) -> answers.PutRecord:
        """PutRecord."""
        stream = self._state.readable(stream_name(request))
        key, data = request.partition_key or "", request.data or b""
        if stream.settings.spread:
            hash_key, size = stream.spread_key(), len(key.encode()) + len(data)
        elif request.partition_key is None:
            raise constraints.broken("partitionKey", None, "Member must not be null")
        else:
            hash_key, size = weigh(key, data, request.explicit_hash_key)
        limit = stream.settings.max_record_kib * 1024
        if size > limit:
            raise constraints.broken("data", data, f"Member must have length less than or equal to {limit}")
        if request.sequence_number_for_ordering is not None:
            self._check_ordering(stream, request.sequence_number_for_ordering)
        _check_rehearsal(request)
        refused: list[Any] = [None]
        placements = self._state.place(stream, [hash_key], call.now, self._admit(stream, [size], call, refused))
        if not placements:
            raise Refused(_TOO_MUCH, refused[0].error_message)
        ((shard, first, arrival, _),) = placements
        number = sequence.number(shard.origin, first, arrival // 1000, shard.index)
        encryption = encryption_type(stream)
        await self._store.write([Chunk(shard.number, first, arrival, 1, size, pack([(key, data)]))])
        return answers.PutRecord(shard.id, str(number), encryption)

    async def put_records(self, request: requests.PutRecords, call: Call) -> answers.PutRecords:
        """PutRecords."""
        stream = self._state.readable(stream_name(request))
        entries = request.records or []
        limit = stream.settings.max_record_kib * 1024
        hash_keys, sizes = weigh_spread(entries, limit, stream) if stream.settings.spread else weigh_all(entries, limit)
        _check_rehearsal(request)
        results: list[Any] = [None] * len(entries)
        chunks = []
        entry_answer = answers.PutRecordsEntry
        admit = self._admit(stream, sizes, call, results)
        failed = len(entries)
        for shard, first, arrival, members in self._state.place(stream, hash_keys, call.now, admit):
            number = sequence.number(shard.origin, first, arrival // 1000, shard.index)
            name = shard.id
            for member in members:
                results[member] = entry_answer(str(number), name)
                number += sequence.STEP
            chosen = [entries[member] for member in members]
            kept = pack([(entry.partition_key or "", entry.data) for entry in chosen])
            size = sum([sizes[member] for member in members])
            failed -= len(members)
            chunks.append(Chunk(shard.number, first, arrival, len(members), size, kept))
        encryption = encryption_type(stream)
        await self._store.write(chunks)
        return answers.PutRecords(failed, results, encryption)

    async def get_shard_iterator(self, request: requests.GetShardIterator, call: Call) -> answers.GetShardIterator:
        """GetShardIterator."""
        stream = self._state.readable(stream_name(request))
        shard = self._state.shard(stream, request.shard_id or "")
        if stream.expired(shard, call.now):
            raise not_found(f"Shard {shard.id} in stream {stream.name} under account {ACCOUNT} does not exist")
        place = self._position(stream, shard, request, call)
        _check_rehearsal(request)
        if self._quotas is not None and not self._quotas.may_iterate(shard.number, call.now):
            raise Refused(_TOO_MUCH, _rate_exceeded(stream, shard))
        return answers.GetShardIterator(self._iterator(stream, shard, place, call))

    async def get_records(self, request: requests.GetRecords, call: Call) -> answers.GetRecords:
        """GetRecords."""
        position = self._sealer.open(request.shard_iterator or "", Iterator)
        if position is None or (request.stream_arn is not None and named_by(request.stream_arn) != position.stream):
            raise invalid("Invalid ShardIterator.")
        _check_age(position.issued / 1000, call.now)
        stream = self._state.readable(position.stream)
        if stream.settings.created != position.created or position.shard_index >= len(stream.shards):
            name = shard_id(position.shard_index)
            raise not_found(f"Shard {name} in stream {stream.name} under account {ACCOUNT} does not exist")
        _check_rehearsal(request)
        shard = stream.shards[position.shard_index]
        if self._quotas is not None and not self._quotas.may_read(shard.number, call.now):
            raise Refused(_TOO_MUCH, _rate_exceeded(stream, shard))
        return self._read(stream, shard, position.place, request.limit, call)

    def _admit(self, stream: Stream, sizes: list[int], call: Call, results: list[Any]) -> Admit | None:
        """Return what lets a put's records in as far as quotas go, and writes the others' refusals into `results`."""
        quotas = self._quotas
        if quotas is None:
            return None

        def admit(shard: Shard, members: list[int]) -> list[int]:
            admitted = quotas.admitted(shard.number, [sizes[member] for member in members], call.now)
            if len(admitted) == len(members):
                return members
            refusal = answers.PutRecordsEntry(error_code=_TOO_MUCH, error_message=_rate_exceeded(stream, shard))
            for member in members:
                results[member] = refusal
            return [members[place] for place in admitted]

        return admit

    def _read(self, stream: Stream, shard: Shard, place: int, limit: int | None, call: Call) -> answers.GetRecords:
        horizon = stream.horizon(call.now)
        most = limit or service_quotas.GET_RECORDS_MAX_RECORDS
        size = service_quotas.GET_RECORDS_MAX_BYTES
        slices = self._store.read(shard.number, place, limit=most, size=size)
        if slices and slices[0].arrival < horizon:
            place = self._store.find(shard.number, horizon)
            slices = self._store.read(shard.number, place, limit=most, size=size)
        records = []
        record_answer, absent = answers.ReadRecord, msgspec.UNSET
        for first, arrival, _, kept in slices:
            number = sequence.number(shard.origin, first, arrival // 1000, shard.index)
            seconds = arrival / 1000
            encryption = "KMS" if stream.settings.encrypted(arrival) else "NONE"
            for record in kept:
                key = record.partition_key or absent
                records.append(record_answer(str(number), seconds, record.data, key, encryption))
                number += sequence.STEP
            place = first + len(kept)
        if self._quotas is not None:
            self._quotas.was_read(shard.number, sum(slice_.size for slice_ in slices), call.now)
        tip = self._store.tip(shard.number)
        if not slices:
            place = max(place, tip.place + 1)
        behind = 0
        if slices and place <= tip.place:
            behind = max(0, int(call.now * 1000) - slices[-1].arrival)
        answer = answers.GetRecords(records, behind)
        if shard.ending_place is not None and place >= shard.ending_place:
            answer.child_shards = [child_answer(child) for child in stream.children(shard)]
        else:
            answer.next_shard_iterator = self._iterator(stream, shard, place, call)
        return answer

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
            moment = millis(timestamp)
            if moment > now:
                raise invalid(
                    "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. "
                    f"timestampInMillis: {moment}, currentTimestampInMillis: {now}"
                )
            return self._store.find(shard.number, moment)
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


def _rate_exceeded(stream: Stream, shard: Shard) -> str:
    return f"Rate exceeded for shard {shard.id} in stream {stream.name} under account {ACCOUNT}."


def _check_age(issued: float, now: float) -> None:
    if now - issued > service_quotas.SHARD_ITERATOR_LIFETIME:
        raise Refused(
            "ExpiredIteratorException",
            f"Iterator expired. The iterator was created at time {_date(issued)} while right now it is {_date(now)} "
            "which is further in the future than the tolerated delay of 300000 milliseconds.",
        )


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")


def _check_rehearsal(request: requests.DataRequest | requests.GetRecords) -> None:
    if request.dry_run:
        raise Refused("DryRunOperationException", "Request would have succeeded, but DryRun flag is set.")


def _wrong_iterator(kind: str | None, number: str | None, timestamp: float | None) -> Refused:
    return invalid(
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or "
        "(2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. "
        f"Request specified {kind} and {'a' if number is not None else 'no'} StartingSequenceNumber"
        f"{' and also a Timestamp' if timestamp is not None else ''}."
    )

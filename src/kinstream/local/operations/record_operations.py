"""Data plane operations: PutRecord, PutRecords, GetShardIterator and GetRecords."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kinstream import service_quotas
from kinstream.local.operations import constraints, requests, responses
from kinstream.local.operations.entries import hash_key_and_size, hash_keys_and_sizes, spread_hash_keys_and_sizes
from kinstream.local.operations.naming import CallContext, check_dry_run, parse_stream_arn, stream_name
from kinstream.local.operations.settings_operations import encryption_type
from kinstream.local.operations.shard_operations import child_response
from kinstream.local.operations.shard_reader import ShardReader, Start
from kinstream.local.operations.tokens import ShardIterator, TokenCodec
from kinstream.local.state import sequence
from kinstream.local.state.model import ACCOUNT, Shard, Stream, shard_id
from kinstream.local.state.quotas import Quotas
from kinstream.local.state.request_error import RequestError, invalid, not_found
from kinstream.local.state.state import Admit, State
from kinstream.local.storage.record_store import Chunk, Store, pack

_TOO_MUCH = "ProvisionedThroughputExceededException"


class RecordOperations:
    """The operations of the data plane."""

    def __init__(self, state: State, store: Store, tokens: TokenCodec, quotas: Quotas | None) -> None:
        self._state = state
        self._store = store
        self._tokens = tokens
        self._quotas = quotas
        self._reader = ShardReader(store)

    async def put_record(self, request: requests.PutRecord, call: CallContext) -> responses.PutRecord:
        """PutRecord."""
        stream = self._state.readable(stream_name(request))
        key, data = request.partition_key or "", request.data or b""
        if stream.settings.spread:
            hash_key, size = stream.spread_key(), len(key.encode()) + len(data)
        elif request.partition_key is None:
            raise constraints.violation_error("partitionKey", None, "Member must not be null")
        else:
            hash_key, size = hash_key_and_size(key, data, request.explicit_hash_key)
        limit = stream.settings.max_record_kib * 1024
        if size > limit:
            raise constraints.violation_error("data", data, f"Member must have length less than or equal to {limit}")
        if request.sequence_number_for_ordering is not None:
            self._check_ordering(stream, request.sequence_number_for_ordering)
        check_dry_run(request)
        errors: list[Any] = [None]
        placements = self._state.place(stream, [hash_key], call.now, self._admit(stream, [size], call, errors))
        if not placements:
            raise RequestError(_TOO_MUCH, errors[0].error_message)
        ((shard, first, arrival, _),) = placements
        number = sequence.number(shard.origin, first, arrival // 1000, shard.index)
        encryption = encryption_type(stream)
        await self._store.write([Chunk(shard.number, first, arrival, 1, size, pack([(key, data)]))])
        return responses.PutRecord(shard.id, str(number), encryption)

    async def put_records(self, request: requests.PutRecords, call: CallContext) -> responses.PutRecords:
        """PutRecords."""
        stream = self._state.readable(stream_name(request))
        entries = request.records or []
        limit = stream.settings.max_record_kib * 1024
        hash_keys, sizes = (
            spread_hash_keys_and_sizes(entries, limit, stream)
            if stream.settings.spread
            else hash_keys_and_sizes(entries, limit)
        )
        check_dry_run(request)
        results: list[Any] = [None] * len(entries)
        chunks = []
        entry_response = responses.PutRecordsEntry
        admit = self._admit(stream, sizes, call, results)
        failed = len(entries)
        for shard, first, arrival, members in self._state.place(stream, hash_keys, call.now, admit):
            number = sequence.number(shard.origin, first, arrival // 1000, shard.index)
            name = shard.id
            for member in members:
                results[member] = entry_response(str(number), name)
                number += sequence.STEP
            chosen = [entries[member] for member in members]
            kept = pack([(entry.partition_key or "", entry.data) for entry in chosen])
            size = sum([sizes[member] for member in members])
            failed -= len(members)
            chunks.append(Chunk(shard.number, first, arrival, len(members), size, kept))
        encryption = encryption_type(stream)
        await self._store.write(chunks)
        return responses.PutRecords(failed, results, encryption)

    async def get_shard_iterator(
        self, request: requests.GetShardIterator, call: CallContext
    ) -> responses.GetShardIterator:
        """GetShardIterator."""
        stream = self._state.readable(stream_name(request))
        shard = self._state.shard(stream, request.shard_id or "")
        if stream.expired(shard, call.now):
            raise not_found(f"Shard {shard.id} in stream {stream.name} under account {ACCOUNT} does not exist")
        start = Start(
            request.shard_iterator_type, request.starting_sequence_number, request.timestamp, "GetShardIterator"
        )
        position = self._reader.start_position(stream, shard, start, call.now)
        check_dry_run(request)
        if self._quotas is not None and not self._quotas.may_iterate(shard.number, call.now):
            raise RequestError(_TOO_MUCH, _rate_exceeded(stream, shard))
        return responses.GetShardIterator(self._iterator(stream, shard, position, call))

    async def get_records(self, request: requests.GetRecords, call: CallContext) -> responses.GetRecords:
        """GetRecords."""
        iterator = self._tokens.decode(request.shard_iterator or "", ShardIterator)
        if iterator is None or (
            request.stream_arn is not None and parse_stream_arn(request.stream_arn) != iterator.stream
        ):
            raise invalid("Invalid ShardIterator.")
        _check_age(iterator.issued / 1000, call.now)
        stream = self._state.readable(iterator.stream)
        if stream.settings.created != iterator.created or iterator.shard_index >= len(stream.shards):
            name = shard_id(iterator.shard_index)
            raise not_found(f"Shard {name} in stream {stream.name} under account {ACCOUNT} does not exist")
        check_dry_run(request)
        shard = stream.shards[iterator.shard_index]
        if self._quotas is not None and not self._quotas.may_read(shard.number, call.now):
            raise RequestError(_TOO_MUCH, _rate_exceeded(stream, shard))
        return self._read(stream, shard, iterator.position, request.limit, call)

    def _admit(self, stream: Stream, sizes: list[int], call: CallContext, results: list[Any]) -> Admit | None:
        """Return a function that admits records within the quotas, and stores the errors of the others in `results`."""
        quotas = self._quotas
        if quotas is None:
            return None

        def admit(shard: Shard, members: list[int]) -> list[int]:
            admitted = quotas.admitted(shard.number, [sizes[member] for member in members], call.now)
            if len(admitted) == len(members):
                return members
            error = responses.PutRecordsEntry(error_code=_TOO_MUCH, error_message=_rate_exceeded(stream, shard))
            for member in members:
                results[member] = error
            return [members[index] for index in admitted]

        return admit

    def _read(
        self, stream: Stream, shard: Shard, position: int, limit: int | None, call: CallContext
    ) -> responses.GetRecords:
        most = limit or service_quotas.GET_RECORDS_MAX_RECORDS
        found = self._reader.read(
            stream, shard, position, call.now, limit=most, size=service_quotas.GET_RECORDS_MAX_BYTES
        )
        if self._quotas is not None:
            self._quotas.was_read(shard.number, found.size, call.now)
        response = responses.GetRecords(found.records, found.millis_behind)
        if found.ended:
            response.child_shards = [child_response(child) for child in stream.children(shard)]
        else:
            response.next_shard_iterator = self._iterator(stream, shard, found.position, call)
        return response

    def _iterator(self, stream: Stream, shard: Shard, position: int, call: CallContext) -> str:
        return self._tokens.encode(
            ShardIterator(stream.name, stream.settings.created, shard.index, position, int(call.now * 1000))
        )

    def _check_ordering(self, stream: Stream, number: str) -> None:
        parsed = sequence.parse(number)
        shards = stream.shards
        if (
            parsed is None
            or parsed.shard_index >= len(shards)
            or parsed.origin != shards[parsed.shard_index].origin
            or parsed.position > shards[parsed.shard_index].last_place
        ):
            raise invalid(
                f"ExclusiveMinimumSequenceNumber {number} used in PutRecord on stream {stream.name} "
                f"under account {ACCOUNT} is invalid."
            )


def _rate_exceeded(stream: Stream, shard: Shard) -> str:
    return f"Rate exceeded for shard {shard.id} in stream {stream.name} under account {ACCOUNT}."


def _check_age(issued: float, now: float) -> None:
    if now - issued > service_quotas.SHARD_ITERATOR_LIFETIME:
        raise RequestError(
            "ExpiredIteratorException",
            f"Iterator expired. The iterator was created at time {_date(issued)} while right now it is {_date(now)} "
            "which is further in the future than the tolerated delay of 300000 milliseconds.",
        )


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")

"""RangeReader: reads the records between two positions of a shard, and nothing else.

    find the shard -> pages -> cut at the upper bound -> deaggregate -> cut inside aggregates at both bounds

Reading begins at the record of the lower bound itself, which shows that no record after it has expired.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.config import Handling
from kinstream.consume.deaggregate import Deaggregator, RecordList, Undeliverable, set_origin
from kinstream.consume.deliver.record_batch import RecordBatch
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import TRIM_HORIZON
from kinstream.consume.ranges.bounds import Bounds
from kinstream.consume.ranges.shards import RangeShards, Vanished
from kinstream.consume.shard.retention import SHORTEST_RETENTION, RetentionCheck
from kinstream.errors import ConfigError, ConsumeError, DataExpired, KinesisError
from kinstream.events import Event, RecordsExpired
from kinstream.record import ReceivedRecord, Shard, Source

MAX_BATCH = Handling().max_batch_records
"""Records in a batch. The last aggregate of a batch may exceed it by `PIECE`."""

PIECE = 1000
"""Maximum records of an aggregate that are expanded at once."""


class RangeReader:
    """Reads one range.

    Args:
        client: Sends the requests.
        stream: The stream.
        shard_id: The shard.
        bounds: The range.
        skips_expired: True to read the records that are left, if others have expired.
    """

    def __init__(self, client: Client, stream: Stream, shard_id: str, bounds: Bounds, *, skips_expired: bool) -> None:
        self._stream = stream
        self._shard_id = shard_id
        self._bounds = bounds
        self._skips_expired = skips_expired
        self._shards = RangeShards(client, stream)
        self._seen = False  # a record, which may be outside the range
        self._retention: RetentionCheck | None = None
        self._accepts_any_key = False
        self._origin = Source(shard_id, stream.name)

    async def batches(self) -> AsyncGenerator[RecordBatch, None]:
        """Yield the records in batches.

        Raises:
            ConfigError: The upper bound is the end of a shard that is open.
            ConsumeError: The shard cannot be read, or ends before the upper bound.
            KinesisError: The shards could not be listed.
        """
        if self._bounds.empty and not self._bounds.upto.ended:
            return
        try:
            shard = await self._shards.find(self._shard_id)
        except LookupError:
            raise self._failed("the stream has no shard with this id") from None
        if self._bounds.upto.ended and shard is not None and not shard.closed:
            raise ConfigError(f"upto='SHARD_END': the shard {self._shard_id} is open: its end is not known yet")
        if self._bounds.empty:
            return
        if shard is None:
            self._expired("the shard has expired with all its records")
            return
        try:
            async with aclosing(self._read(shard)) as batches:
                async for batch in batches:
                    yield batch
        except Vanished:
            self._expired("the shard has expired while it was read")
        except ConsumeError:
            raise
        except KinesisError as error:
            raise self._failed(f"reading failed: {error.details}") from error

    async def _read(self, shard: Shard) -> AsyncGenerator[RecordBatch, None]:
        async with aclosing(self._shards.pages(shard, self._bounds.after.at_record)) as pages:
            async for page in pages:
                await self._check_retention(page)
                self._seen = self._seen or bool(page.records)
                records, reached = self._bounds.cut(page.records)
                async with aclosing(self._expanded(shard, records)) as parts:
                    async for part in parts:
                        if within := self._bounds.within(part):
                            yield RecordBatch(
                                within, self._shard_id, page.millis_behind_latest, stream_name=self._stream.name
                            )
                if reached:
                    return
                # A page with records may say 0 although records of the same millisecond follow: only an empty one is the end.
                if page.ended or (page.millis_behind_latest == 0 and not page.records and not shard.closed):
                    await self._check_end(shard)
                    return

    async def _expanded(self, shard: Shard, records: RecordList) -> AsyncGenerator[RecordList, None]:
        """Yield the user records of a page, in parts of about `MAX_BATCH`. No part is empty."""
        part: RecordList = []
        done = 0
        for index in set_origin(records, self._origin):
            part += records[done:index]
            done = index + 1
            async with aclosing(self._user_records(shard, records[index])) as pieces:
                async for piece in pieces:
                    part += piece
                    if len(part) >= MAX_BATCH:
                        yield part
                        part = []
        part += records[done:]
        if part:
            yield part

    async def _user_records(self, shard: Shard, record: ReceivedRecord[bytes]) -> AsyncGenerator[RecordList, None]:
        """Yield the user records of one record that may be an aggregate. A bad index makes it a plain record."""
        while True:
            hash_keys = None if self._accepts_any_key else shard.hash_key_range
            events: list[Event] = []
            deaggregator = Deaggregator(self._shard_id, self._origin, hash_keys, PIECE, events.append)
            for found in deaggregator.batches([record]):
                yield [found.record] if isinstance(found, Undeliverable) else found
            if deaggregator.dropped and not self._accepts_any_key:
                # The stream is described only if this decides something, since the rate of descriptions is limited.
                self._accepts_any_key = (await self._shards.describe()).accepts_any_key
                if self._accepts_any_key:
                    continue
            for event in events:
                self._shards.report(event)
            return

    async def _check_retention(self, page: Page) -> None:
        """Check if records have expired before they were read: the one of the lower bound, or ones between two pages."""
        check = self._retention
        if check is None:
            retention = math.inf  # without old records, none can expire in the meantime
            old = self._shards.service_time() - SHORTEST_RETENTION / 2
            if page.records and page.records[0].arrival_time < old:
                retention = (await self._shards.describe()).retention or math.inf
            check = self._retention = RetentionCheck(self._shard_id, retention)
            check.begin(self._bounds.after, None)
        event = check.received(page, self._shards.service_time())
        if event is not None:
            self._expired(
                f"the record {event.checkpoint.partition(' ')[2]} has expired, and later ones may have", event
            )

    def _expired(self, why: str, event: Event | None = None) -> None:
        """Report expired records, or raise DataExpired."""
        after = self._bounds.after
        if not self._skips_expired and after != TRIM_HORIZON:
            raise DataExpired(
                f"{self._shard_id}: {why}: reading after {str(after)!r} would skip records. Read from the oldest record, or pass"
                " on_expired='skip'",
                shard_id=self._shard_id,
            )
        self._shards.report(event or RecordsExpired(self._shard_id, str(after), str(TRIM_HORIZON), True))

    async def _check_end(self, shard: Shard) -> None:
        """Check that the upper bound may be at the end of the shard, or before its oldest record.

        Raises:
            ConsumeError: It is not.
        """
        upto = self._bounds.upto
        if upto.ended or (not self._seen and await self._shards.knows(shard, upto)):
            return  # all records up to the bound have expired
        raise self._failed(f"it ends before upto={str(upto)!r}, and records that are not written yet are not awaited")

    def _failed(self, why: str) -> ConsumeError:
        return ConsumeError(f"{self._shard_id}: {why}", shard_id=self._shard_id)

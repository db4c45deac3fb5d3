"""Origin: the reference from a record to the reader of its shard, through which the application checkpoints it."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from kinstream.background import across
from kinstream.consume.lease.keeper import lease_lost
from kinstream.errors import ClosedError
from kinstream.record import ReceivedRecord

if TYPE_CHECKING:
    from kinstream.consume.shard.reader import ShardReader


class Origin:
    """Reference from a record to the reader that delivered it. It keeps neither the reader nor other records alive.

    Attributes:
        shard_id: The shard.
        stream_name: Name of its stream.
        lost: True once the shard is lost or released: its records can no longer be checkpointed here.
    """

    __slots__ = ("_reader", "lost", "shard_id", "stream_name")

    def __init__(self, shard_id: str, reader: ShardReader | None = None, stream_name: str = "") -> None:
        self.shard_id: str = shard_id
        self.stream_name: str = stream_name
        self.lost: bool = False
        self._reader = None if reader is None else weakref.ref(reader)

    def checkpoint(self, record: ReceivedRecord[bytes]) -> Awaitable[None]:
        """Checkpoint a record and all before it. The result is awaitable. In another thread the call returns when it is stored.

        Raises:
            ClosedError: Reading has ended.
            LeaseLost: This worker no longer holds the lease of the shard.
            KinesisError: The store failed, or the process was forked.
        """
        if self.lost:
            raise lease_lost(self.shard_id)
        reader = None if self._reader is None else self._reader()
        if reader is None:
            raise ClosedError(
                f"{self.shard_id}: the consumer that read this record has stopped: the record can no longer be checkpointed"
            )
        return across(reader.loop, reader.process, reader.checkpoint_through(record, self))

    def __eq__(self, other: object) -> bool:
        """Compare the shards only, so that records are equal regardless of their readers."""
        return self.shard_id == other.shard_id if isinstance(other, Origin) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.shard_id)

    def __reduce__(self) -> tuple[type[Origin], tuple[str, None, str]]:
        return Origin, (self.shard_id, None, self.stream_name)

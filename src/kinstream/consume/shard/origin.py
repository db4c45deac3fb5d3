"""Origin: the reference from a record to the reader of its shard, through which the application checkpoints it."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from kinstream.background import across
from kinstream.consume.lease.keeper import lease_lost
from kinstream.errors import ClosedError
from kinstream.record import ReceivedRecord, Source

if TYPE_CHECKING:
    from kinstream.consume.shard.reader import ShardReader


class Origin(Source):
    """Reference from a record to the reader that delivered it. It keeps neither the reader nor other records alive.

    Attributes:
        lost: True once the shard is lost or released: its records can no longer be checkpointed here.
    """

    __slots__ = ("_reader", "lost")

    def __init__(self, shard_id: str, reader: ShardReader | None = None, stream_name: str = "") -> None:
        super().__init__(shard_id, stream_name)
        self.lost: bool = False
        self._reader = None if reader is None else weakref.ref(reader)

    def checkpoint(self, record: ReceivedRecord[bytes]) -> Awaitable[None]:
        """Checkpoint a record and all before it. The result is awaitable. In another thread the call returns when it is stored.

        Raises:
            ClosedError: Reading has ended.
            LeaseLost: This worker no longer holds the lease of the shard. If the store fails, that is once the lease has expired.
            UsageError: The process was forked.
        """
        if self.lost:
            raise lease_lost(self.shard_id)
        reader = None if self._reader is None else self._reader()
        if reader is None:
            raise ClosedError(
                f"{self.shard_id}: the consumer that read this record has stopped: the record can no longer be checkpointed"
            )
        return across(reader.loop, reader.process, reader.checkpoint_through(record, self))

    def __reduce__(self) -> Any:
        return Origin, (self.shard_id, None, self.stream_name)

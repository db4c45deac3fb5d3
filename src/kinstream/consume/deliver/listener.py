"""ShardListener: functions of the application that are called when a shard is assigned, revoked or lost."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Literal, Protocol

from kinstream.consume.deliver.handler import is_async
from kinstream.consume.withhold import withheld
from kinstream.record import ShardAssignment

_log = logging.getLogger("kinstream.consumer")


class ShardListener(Protocol):
    """Listener of a consumer, for applications that keep state for each shard. Each method is optional: a subclass inherits it.

    Async methods run on the event loop, plain ones in a thread. An exception is logged and has no further effect.
    """

    def assigned(self, shard: ShardAssignment) -> object:
        """A shard was assigned to this worker. Its first record is delivered when this has returned."""
        return None

    def revoked(self, shard: ShardAssignment) -> object:
        """Another worker continues with a shard, or this worker stops. No record of it is being handled, and none follows.

        The application may store its state here, and checkpoint completed records. The shard is released when this has returned.
        """
        return None

    def ended(self, shard: ShardAssignment) -> object:
        """The last record of a closed shard was handled.

        The application may store its state here. With manual checkpoints it checkpoints the last record here: before that, the
        end of the shard is not stored, and other workers do not read the shards that follow.
        """
        return None

    def lost(self, shard: ShardAssignment) -> object:
        """The lease of a shard was lost. Its handlers are cancelled, and nothing of it can be checkpointed here."""
        return None


async def notify(
    listener: ShardListener | None, method: Literal["assigned", "revoked", "ended", "lost"], shard: ShardAssignment
) -> None:
    """Call a method of the listener, if there is one. An exception is logged."""
    function: Any = getattr(listener, method, None)
    if function is None:
        return
    try:
        if is_async(function):
            await function(shard)
        else:
            await asyncio.to_thread(function, shard)
    except Exception as error:  # noqa: BLE001 - the listener is user code
        place, name = shard.shard_id, type(error).__name__
        _log.error("%s: listener.%s raised %s; reading continues", place, method, name, exc_info=withheld(error))

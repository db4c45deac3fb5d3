"""ShardReader: reads one shard during one tenure, from its grant to the shard's end or to its release.

    begin -> dispatch -> finish | leave | lose

A reader has the only task of its shard, and each piece of the shard's state has one owner:

- `cursor.py` has the positions, and decides which checkpoint may be stored.
- `buffer.py` has the pages that were read ahead, and `receive.py` inspects each page as it arrives.
- `lifecycle.py` has the states and the transitions between them.

The reader connects them. If its tenure ends, it ends no other reader: the worker continues with the other shards.
"""

from __future__ import annotations

import asyncio
import os

from kinstream.consume.checkpoint import Checkpointer
from kinstream.consume.deaggregate import Deaggregator, RecordList, Undeliverable
from kinstream.consume.deliver.dispatcher import Dispatcher
from kinstream.consume.deliver.failure_policy import FailurePolicy, Interrupted
from kinstream.consume.deliver.listener import notify
from kinstream.consume.deliver.record_batch import RecordBatch
from kinstream.consume.discover import NOT_READY_DELAY, NOT_READY_TIMEOUT
from kinstream.consume.fetch.fetcher import Page, data_bytes
from kinstream.consume.fetch.position import LATEST, PROMPT_START, Position
from kinstream.consume.lease.keeper import Tenure, lease_lost
from kinstream.consume.lease.lease import qualified_id
from kinstream.consume.shard.buffer import ShardBuffer
from kinstream.consume.shard.context import ReaderContext, handled_for
from kinstream.consume.shard.cursor import Beginning, Cursor, Write
from kinstream.consume.shard.lifecycle import State, Transition, after_transition
from kinstream.consume.shard.origin import Origin
from kinstream.consume.shard.progress import Progress
from kinstream.consume.shard.receive import Receiver
from kinstream.consume.shard.until import Until
from kinstream.consume.stop import sleep_unless
from kinstream.errors import ConsumeError, InvalidArgument, KinesisError, LeaseLost, NotFound, UsageError
from kinstream.events import (
    CheckpointFailed,
    ShardAssigned,
    ShardEnded,
    ShardLeaseLost,
    ShardReleased,
    ShardRevoked,
    ShardStalled,
)
from kinstream.failures import described
from kinstream.record import ChildShard, ReceivedRecord, Shard, ShardAssignment, ShardStatus


class ShardReader:
    """Reads one shard during one tenure.

    Args:
        tenure: Ownership of the shard.
        context: Shared by all readers.

    Attributes:
        shard: The shard.
        shard_id: Its id. If the consumer reads several streams, with the name of its stream before it.
        tenure: Ownership of the shard.
        policy: Decides about records that cannot be handled.
        state: State in its lifecycle.
        cursor: Positions, and completed records.
        children: Child shards that the shard's last page announced.
        loop: The event loop that it is read in.
        process: The id of its process.
    """

    def __init__(self, tenure: Tenure, context: ReaderContext) -> None:
        shard = tenure.shard
        self.shard: Shard = shard
        self.tenure: Tenure = tenure
        self.shard_id: str = qualified_id(shard.shard_id, tenure.stream_name)
        self.state: State = State.WAITING
        self.cursor: Cursor = Cursor(manual=context.manual, pins=tenure.shared)
        self.children: list[ChildShard] = []
        self._child_ids: list[str] | None = None
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.process: int = os.getpid()
        self._context = context
        self._clock = context.clock
        self._announce = context.announce
        self._stopping = asyncio.Event()
        self.policy: FailurePolicy = FailurePolicy(
            context.errors, context.clock, context.announce, self._stopping, context.dead_letters
        )
        self._checkpointer = Checkpointer(self.shard_id, tenure, context.clock, self._stopping, context.announce)
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()  # no record of an iteration is being handled
        self._settled.set()
        self._arrived = asyncio.Event()
        self._current_batch: RecordList = []
        self._error: Exception | None = None
        self._origin = Origin(self.shard_id, self, context.stream_name)
        self._until = Until(context.until, is_start=context.until_is_start, began=context.began, closed=shard.closed)
        self._receiver = Receiver(
            self.shard_id, self.cursor, self._until, context.clock, context.service_time, context.retention,
            context.announce,
        )  # fmt: skip
        self._deaggregator = Deaggregator(
            self.shard_id,
            self._origin,
            None if context.accepts_misrouted else shard.hash_key_range,
            context.max_batch_records,
            context.announce,
        )
        self._buffer = ShardBuffer(
            shard, context.fetcher, context.budget, self._deaggregator, self._received, self._fetch_failed
        )

    def _change(self, transition: Transition) -> None:
        self.state = after_transition(self.state, transition)

    # The path of the shard.

    def start(self) -> asyncio.Task[None]:
        """Start to read the shard in a task of its own, which is returned."""
        self._task = asyncio.create_task(self._read(), name="kinstream-consume")
        return self._task

    async def _read(self) -> None:
        """Read the shard from its stored checkpoint to its end."""
        handled_for.set(self._context.coordinator)
        try:
            await notify(self._context.listener, "assigned", self._assignment(None))
            self._begin()
            if self._context.dispatcher_of is not None:
                await self._dispatch(self._context.dispatcher_of(self))
        except KinesisError as error:
            self.fail(error)

    def _begin(self) -> None:
        """Begin to fetch pages, at the stored checkpoint or at the start position."""
        self._change(Transition.GRANTED)
        position = self.tenure.position
        if self.tenure.shared:
            self._announce(ShardAssigned(self.shard_id, str(position)))
        latest, at = self._context.latest
        if position == LATEST.since(latest) and self._clock.monotonic() - at < PROMPT_START:
            position = LATEST
        self._fetch(self.cursor.begin(position, self.tenure.idle_until, self._context.service_time()))
        if self._context.coordinator.paused:
            self.pause()

    def _assignment(self, successor: str | None) -> ShardAssignment:
        position = self.tenure.position if self.state is State.WAITING else self.cursor.done
        return ShardAssignment(self.shard_id, str(position), successor, self.tenure.pending)

    def _fetch(self, beginning: Beginning) -> None:
        self._error = None
        self._receiver.begin(beginning)
        self._buffer.start(beginning.position.at_record, beginning.late.at_record)

    async def _dispatch(self, dispatcher: Dispatcher) -> None:
        """Deliver the records to a handler, until the end of the shard or until delivery is to stop."""
        try:
            while not self.ending:
                if self.restart_pending or dispatcher.failed:
                    await dispatcher.drain()
                    self.settle()
                found = self.next_batch()
                if found is not None and not isinstance(found, Undeliverable):
                    await dispatcher.deliver(found)
                elif found is not None or self.over:
                    await dispatcher.drain()
                    if len(self.progress):
                        continue  # delivery stops with records not started: the shard is not completed
                    if found is not None:
                        await self.decide(found)
                    else:
                        await self.finish()
                else:
                    await self.wait()
            await dispatcher.drain()
        except Interrupted:
            await dispatcher.abandon()
        except asyncio.CancelledError:
            await dispatcher.abandon()
            raise

    async def decide(self, found: Undeliverable) -> None:
        """Apply the failure policy to a record that cannot be deaggregated."""
        try:
            await self.policy.decide(self.shard_id, [found.record], found.error, 1)
        except Interrupted:
            return
        except ConsumeError as error:
            self.fail(error)
            return
        self.progress.last = found.record

    async def finish(self) -> None:
        """Store that the shard is completed and start its children, or fail. Called when `over` is True."""
        if not self.over:
            return  # the application called `seek` in the meantime
        coordinator = self._context.coordinator
        coordinator.finishing(self)
        try:
            if self._failed:
                await self._finish_failed()
            elif self._until.reached:
                self._change(Transition.UNTIL_REACHED)
                await self._checkpointer.with_retries(self.write)
            else:
                self._change(Transition.COMPLETED)
                await self._finish_completed()
        except KinesisError as error:
            self.fail(error)
        finally:
            if self.state.final:
                await self.stop()
                self._announce.left(self.shard_id)
            coordinator.finished(self)

    async def _finish_failed(self) -> None:
        """Fail, unless the shard was not found: it has expired, or part of the service does not know it yet."""
        error = self._failure
        assert error is not None
        if not isinstance(error, NotFound):
            self.fail(error)
        elif await self._context.coordinator.has_expired(self.shard_id):
            if self.state is not State.READING:
                return  # its tenure ended in the meantime
            self._change(Transition.EXPIRED)
            self._announce.expired_unread(self.shard_id, self.cursor.done)
            await self._finish_completed()
        elif self._receiver.not_found_for >= NOT_READY_TIMEOUT:
            self.fail(error)
        else:
            stops = await sleep_unless(self._stopping, self._clock, NOT_READY_DELAY)
            if self._failed and not self.restart_pending and not stops:  # otherwise it restarts at another position
                self._refetch()

    async def _finish_completed(self) -> None:
        """Start the children, and store the end of the shard."""
        await notify(self._context.listener, "ended", self._assignment(None))
        children = await self._checkpointer.with_retries(lambda: self.tenure.complete(self.children))
        if children is None:
            return  # reading stops: the next reader finds the end again
        self._child_ids = children
        if self._end_may_be_stored:
            await self._checkpointer.with_retries(self._write_end)
        self._announce(ShardEnded(self.shard_id, tuple(map(self._qualified, children))))

    def fail(self, error: Exception) -> None:
        """Stop reading the shard after a failure, and report this to the worker. A lost lease ends only this reader."""
        if isinstance(error, LeaseLost):
            self.lose()
            return
        if self.state in (State.LOST, State.RELEASED):
            return  # the failure of a handler whose record belongs to another worker now
        if not isinstance(error, ConsumeError):
            why = error.details if isinstance(error, KinesisError) else f"{type(error).__name__}: {error}"
            if isinstance(error, InvalidArgument) and error.operation == "GetRecords":
                why += " (a shard iterator becomes invalid if the stream is deleted and created again)"
            cause, error = error, ConsumeError(f"{self.shard_id}: reading failed: {why}", shard_id=self.shard_id)
            error.__cause__ = cause
        if not self.state.final:
            self._change(Transition.FAILED)
        self._error = error
        self.interrupt()
        self._announce.left(self.shard_id)
        self._context.coordinator.failed(error)

    @property
    def ending(self) -> bool:
        """True if no further record is delivered: the shard is completed, or its tenure or the reading ends."""
        return self._stopping.is_set() or self.state.final

    def end(self) -> None:
        """Deliver no more records, after those being handled."""
        self._stopping.set()
        self.interrupt()
        self._arrived.set()

    def abandon_batch(self) -> None:
        """Note that the application requests no further record: the one that it handles is not completed."""
        self._settled.set()

    # The end of the tenure before the end of the shard.

    async def leave(self, successor: str | None, within: float) -> None:
        """Complete the records being handled, store the checkpoint, and release the shard to another worker.

        Args:
            successor: The worker that continues. None: unknown.
            within: Seconds after which the shard is released in any case. Records that are still being handled then are
                delivered again by the successor.
        """
        if self.state in (State.RELEASING, State.RELEASED, State.LOST):
            return
        waiting = self.state is State.WAITING
        if not self.state.final:
            self._change(Transition.REVOKED)
        self._announce(ShardRevoked(self.shard_id, successor))
        self.end()
        self._buffer.discard()
        if waiting and self._task is not None:
            self._task.cancel()
        elif not await self._quiet(within) and self._task is not None:
            self._task.cancel()  # a handler still runs: its record is not completed
        if self._origin.lost:
            return  # the tenure ended in the meantime
        await notify(self._context.listener, "revoked", self._assignment(successor))
        try:
            await self._checkpointer.with_retries(self.release)
            if self.state is State.ENDED and not self.cursor.end_stored:
                self._released()  # its records were handled, but manual checkpoints are missing: the successor continues
        except LeaseLost:
            self.lose()
        except KinesisError as error:  # the lease expires
            self._announce(CheckpointFailed(self.shard_id, error))
            self.lose()

    async def _quiet(self, within: float) -> bool:
        """Wait until no record is being handled. Returns False after `within` seconds."""
        task = None if self._context.dispatcher_of is None else self._task
        handled = asyncio.ensure_future(self._settled.wait() if task is None else asyncio.wait([task]))
        limit = asyncio.ensure_future(self._clock.sleep(within))
        try:
            await asyncio.wait([handled, limit], return_when=asyncio.FIRST_COMPLETED)
            return handled.done()
        finally:
            limit.cancel()
            handled.cancel()

    async def release(self) -> None:
        """Store the last checkpoint and end the tenure. Called when no record is being handled. Raises as `write`.

        The lease is released even if the checkpoint cannot be stored, so that another worker need not wait until it expires.
        """
        if self.state in (State.LOST, State.RELEASED):
            return
        failed: KinesisError | None = None
        write: Write | None = None
        if self.state is State.ENDED or self._idle_to_write is not None:
            try:
                await self.write()
            except KinesisError as error:
                failed = error
        else:
            write = self.cursor.to_write
        await self._checkpointer.release(write)
        if write is not None:
            self.cursor.stored(write)
        if failed is not None:
            raise failed
        self._origin.lost = True
        if self.state is State.RELEASING:
            self._change(Transition.RELEASED)
            self._released()

    def _released(self) -> None:
        self._announce(ShardReleased(self.shard_id, str(self.cursor.done)))
        self._context.coordinator.gone(self)

    async def release_at_end(self) -> None:
        """Release the shard because reading stops, with one retry. Raises as `write`."""
        if self.state in (State.READING, State.PAUSED, State.ENDING):
            await notify(self._context.listener, "revoked", self._assignment(None))
        unsaved = self.has_changes
        try:
            await self._checkpointer.with_retries(self.release)
        except KinesisError:
            if unsaved:
                raise
            # It is reported. The lease expires, and no checkpoint is missing.

    def lose(self) -> None:
        """End the reader because its tenure has ended: nothing more is delivered or stored."""
        if self.state in (State.LOST, State.RELEASED):
            return
        if not self.state.final:
            self._change(Transition.LEASE_LOST)
        self._error = lease_lost(self.shard_id)
        self._origin.lost = True
        self.policy.abandon()
        self.end()
        self._buffer.discard()
        self._announce(ShardLeaseLost(self.shard_id))
        self._announce.left(self.shard_id)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()  # the new owner of the lease handles the same records
        self._context.coordinator.gone(self)

    async def notify_lost(self) -> None:
        """Tell the application that the shard is lost, after `lose`."""
        if self.state is State.LOST:
            await notify(self._context.listener, "lost", self._assignment(None))

    async def stop(self) -> None:
        """Stop fetching, and discard the records that were not delivered."""
        self._discard()
        await self._buffer.stop()

    # Pages that arrive.

    def _received(self, page: Page) -> Page | None:
        page = self._receiver.receive(page)
        self.tenure.received(data_bytes(page.records))
        if self.cursor.pin_pending:
            self._context.coordinator.write_soon(self)
        if page.ended:
            self.children = page.child_shards
            self._change(Transition.END_READ)
        elif not page.records:
            return None
        self.wake()
        return page

    def _fetch_failed(self, error: Exception) -> None:
        self._receiver.fail(error)
        self.wake()

    def _refetch(self) -> None:
        """Restart fetching after the last page that was read."""
        self._error = None
        self._receiver.refetch()
        self._buffer.start(self.cursor.read_to, self.cursor.read_to)

    def watch(self, limit: float) -> None:
        """Fetch again if the shard is stalled for more than a number of seconds, or blocked by the buffers of others."""
        waiting = self.state is State.READING and self._buffer.waiting_for_page
        if (seconds := self._receiver.stalled(limit, waiting_for_page=waiting)) is not None:
            self._announce(ShardStalled(self.shard_id, seconds))
            self._refetch()
        self._buffer.use_reserve()

    # Delivery.

    @property
    def progress(self) -> Progress:
        """The completed records."""
        return self.cursor.progress

    def next_batch(self) -> RecordList | Undeliverable | None:
        """Return the next available batch, or an undeliverable record in its place, or None.

        The caller calls `settle` when it has completed or discarded the batch, before it requests the next one.
        """
        if self.tenure.expired:
            self.lose()
        while self.state in (State.READING, State.ENDING):
            found = self._buffer.next()
            if found is None:
                return None
            found = self.cursor.skip(found)
            if isinstance(found, Undeliverable):
                self.cursor.delivered(found.record)
                return found
            if found is not None:
                self.cursor.delivered(found[-1])
                self._settled.clear()
                self._announce.delivered(len(found))
                return found
        return None

    def as_batch(self, records: RecordList) -> RecordBatch:
        """Return records as the batch that the application receives."""
        return RecordBatch(
            records, self.shard_id, self._buffer.millis_behind_latest, stream_name=self._context.stream_name
        )

    def deliver_from(self, batch: RecordList) -> None:
        """Record the batch that is delivered one by one. `interrupt` clears this list, which stops its delivery."""
        self._current_batch = batch

    def interrupt(self) -> None:
        """Stop delivering the batch that is delivered one by one."""
        self._current_batch.clear()

    def settle(self) -> None:
        """Note that no record of the shard is being handled, and restart at another position if a restart is pending."""
        self._current_batch = []
        self._settled.set()
        if self.restart_pending:
            self._fetch(self.cursor.restart(self._context.service_time(), self._clock.monotonic()))

    def wake(self) -> None:
        """Note that the shard may have records to deliver, or has ended."""
        self._arrived.set()
        self._context.coordinator.woken(self)

    async def wait(self) -> None:
        """Wait for the next `wake` or `end`."""
        self._arrived.clear()
        await self._arrived.wait()

    @property
    def restart_pending(self) -> bool:
        """True if reading restarts at another position when no record is being handled."""
        return self.cursor.restart_pending and self.state is State.READING

    @property
    def suspended(self) -> bool:
        """True if no delivered record may be started: the shard is paused, or a seek is pending."""
        return self.state is State.PAUSED or self.cursor.seek_pending

    @property
    def over(self) -> bool:
        """True if every record up to the end, or up to a failure, was delivered."""
        return self._failed or (self.state is State.ENDING and self._buffer.drained)

    @property
    def _failure(self) -> Exception | None:
        return self._error or self._receiver.failure

    @property
    def _failed(self) -> bool:
        """True if every record before a failure was delivered."""
        return self._failure is not None and self._buffer.drained and self.state in (State.READING, State.ENDING)

    # Control by the application. Records that were read ahead are discarded, and read again when no record is being handled.

    def pause(self) -> None:
        """Stop delivering, unless the shard is paused or not being read."""
        if self.state in (State.READING, State.ENDING):
            self._change(Transition.PAUSE)
            self._discard()

    def resume(self) -> None:
        """Resume after the last completed record, if the shard is paused."""
        if self.state is State.PAUSED:
            self._change(Transition.RESUME)
            self.wake()

    async def seek(self, position: Position) -> None:
        """Continue at another position, and store it. Raises as `write`. If the store fails, it is stored later.

        Raises:
            UsageError: The shard is not being read.
        """
        if self.state not in (State.READING, State.ENDING, State.PAUSED):
            raise UsageError(
                f"seek: shard_id={self.shard_id!r}: this shard is {self.state} and its position cannot change: see status()"
            )
        self._change(Transition.SEEK)
        self._discard()
        # Records written during a pause are delivered.
        now, prompt = self._context.service_time(), self.state is State.READING
        self.cursor.seek(position, now, self._clock.monotonic(), prompt=prompt)
        self._origin = Origin(self.shard_id, self, self._context.stream_name)
        self._deaggregator.use_origin(self._origin)
        self.wake()
        await self.write()

    def _discard(self) -> None:
        self.cursor.discard(drained=self._buffer.drained)
        self.interrupt()
        self._buffer.discard()

    # Checkpoints.

    @property
    def has_changes(self) -> bool:
        """True if a checkpoint is to be stored."""
        if self.state in (State.RELEASING, State.RELEASED, State.LOST):
            return False
        return self.cursor.to_write is not None or self._idle_to_write is not None

    async def write(self) -> None:
        """Store the checkpoint, if it has changed. Raises as `Tenure.checkpoint`."""
        if self.state in (State.RELEASED, State.LOST):
            raise lease_lost(self.shard_id)
        checkpointer, cursor = self._checkpointer, self.cursor
        try:
            if self.state is State.ENDED and not cursor.end_stored and self._end_may_be_stored:
                await self._write_end()
            elif (write := cursor.to_write) is not None:
                await checkpointer.store(write)
                cursor.stored(write)
            if (idle_until := self._idle_to_write) is not None:
                await checkpointer.store_idle(idle_until)
                cursor.idle_stored(idle_until)
        except LeaseLost as error:
            self.fail(error)
            raise

    async def _write_end(self) -> None:
        await self._checkpointer.store_end(self._child_ids or ())
        self.cursor.store_end()

    @property
    def _end_may_be_stored(self) -> bool:
        """True if the end may be stored. The ends of its parents come first, or the parents would be read after it."""
        parents = self.shard.parent_shard_id, self.shard.adjacent_parent_shard_id
        if self._child_ids is None or not self.cursor.may_end:
            return False
        return self._context.coordinator.ends_stored(
            [self._qualified(parent) for parent in parents if parent is not None]
        )

    def _qualified(self, shard_id: str) -> str:
        """Return the id of another shard of the stream, in the form of `shard_id`."""
        return qualified_id(shard_id, self.tenure.stream_name)

    @property
    def _idle_to_write(self) -> float | None:
        if self.state not in (State.READING, State.REACHED):
            return None
        return self.cursor.idle_to_write(drained=self._buffer.drained)

    async def checkpoint_through(self, record: ReceivedRecord[bytes], origin: Origin) -> None:
        """Checkpoint a record and all before it, up to the first one that is not completed. Raises as `Checkpointer.until_lost`.

        A record that was delivered before a seek has no effect: it would undo the seek.
        """
        if origin is not self._origin:
            return
        self.cursor.request(record)
        await self._checkpointer.until_lost(self.write)

    # Status.

    def status(self) -> ShardStatus:
        """Return the public status."""
        receiver, retention = self._receiver, self._context.retention
        lag = receiver.lag(ended=self.state is State.ENDED)
        error = self._announce.last_error(self.shard_id)
        if error is None and self._failure is not None:
            error = described(self._failure)
        state = State.WAITING if self.state is State.READING and not receiver.first_page_seen else self.state
        return ShardStatus(
            self.shard_id,
            state.value,
            None if self.state is State.WAITING else str(self.cursor.done),
            lag,
            max(retention - lag, 0.0) if retention is not None and lag else None,
            self._deaggregator.dropped,
            self._deaggregator.damaged,
            error,
            receiver.last_success,
        )

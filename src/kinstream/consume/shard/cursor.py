"""Cursor: the positions of one shard being read, and the checkpoint that follows from them. Pure."""

from __future__ import annotations

import msgspec

from kinstream.consume.deaggregate import RecordList, Undeliverable
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import LATEST, LATEST_MARGIN, PROMPT_START, SHARD_END, TRIM_HORIZON, Position
from kinstream.consume.shard.progress import Progress, after
from kinstream.record import ReceivedRecord

IDLE_AFTER = 3600.0
"""Seconds without a record after which `idle_until` is stored with the checkpoint, and the interval at which it is stored
again. When retention later removes the record of the checkpoint, the next reader must know that no other record was lost."""


class Beginning(msgspec.Struct, frozen=True):
    """The place at which fetching begins.

    Attributes:
        position: Position if fetching begins immediately.
        late: Position if it begins after a delay, so that LATEST does not become later.
        idle_until: All records up to this time are completed, though the record of the position is older. None: unknown.
    """

    position: Position
    late: Position
    idle_until: float | None


class Write(msgspec.Struct, frozen=True):
    """A position to store as the checkpoint.

    Attributes:
        position: The position.
        rewinds: True if it is the target of a `seek`, which may be earlier than the stored checkpoint.
    """

    position: Position
    rewinds: bool


class Cursor:
    """Positions in one shard, in this order: completed, delivered, read.

    Times are arguments: `now` is the time of the service in seconds since 1970, `monotonic` is the time of a monotonic clock.

    Args:
        manual: True if only the application requests checkpoints.
        pins: True if a start position that depends on the time is replaced by the position before the first record that is read,
            so that a worker with another start position loses no record.

    Attributes:
        progress: The records completed since reading began here. The code that handles records updates it.
        started_from: Position at which reading began, before LATEST was replaced by its time.
        read_to: Position after the last record that was read.
        restart_pending: True if reading is to begin again, at `done`, when no record is being handled.
        end_stored: True once the end of the shard is stored.
    """

    def __init__(self, *, manual: bool, pins: bool = False) -> None:
        self.progress: Progress = Progress()
        self.started_from: Position = TRIM_HORIZON
        self.read_to: Position = TRIM_HORIZON
        self.restart_pending: bool = False
        self.end_stored: bool = False
        self._manual = manual
        self._pins = pins
        self._pinned: Position | None = None  # before the first record that was read after a start by time
        self._begun_at = TRIM_HORIZON  # `done` before the first record is completed
        self._delivered: Position | None = None
        self._skipping = True  # no record after the start position was delivered yet
        self._acquired: Position | None = None  # the checkpoint at the start, or the target of the last seek
        self._requested: Position | None = None  # by the application
        self._written: Position | None = None
        self._seek_to: Position | None = None
        self._unsaved_seek: Position | None = None  # stored before any checkpoint
        self._latest_until = -1.0  # until then a seek to LATEST reads at LATEST, later at its time
        self._caught_up_at: float | None = None
        self._active_at = 0.0
        self._idle_known: float | None = None
        self._idle_written: float | None = None

    # Reading.

    def begin(self, position: Position, idle_until: float | None, now: float) -> Beginning:
        """Begin to read a shard at its stored checkpoint, or at a start position.

        Args:
            position: The position.
            idle_until: As stored with the checkpoint.
            now: The time.
        """
        self._idle_known = self._idle_written = idle_until
        beginning = self._begin_at(position, position.since(now - LATEST_MARGIN), now)
        self._acquired = beginning.late
        self._pins = self._pins and position not in (TRIM_HORIZON, SHARD_END) and not position.is_number
        return beginning

    def restart(self, now: float, monotonic: float) -> Beginning:
        """Begin again: at the target of a seek, or after the completed records. No record may be being handled."""
        resume_at = self.done
        if self._seek_to is None:
            return self._begin_at(resume_at, resume_at, now)
        self._seek_to = None
        self._acquired = resume_at  # earlier progress does not apply after a seek
        return self._begin_at(LATEST if monotonic < self._latest_until else resume_at, resume_at, now)

    def _begin_at(self, position: Position, resume_at: Position, now: float) -> Beginning:
        beginning = Beginning(position, resume_at, self._idle_known)
        self.restart_pending = False
        self.started_from = position
        self._begun_at = self.read_to = resume_at
        self._delivered = self._caught_up_at = self.progress.last = None
        self._skipping = True
        self._active_at = now if self._idle_known is None else 0.0
        self._idle_known = None
        return beginning

    def received(self, page: Page) -> None:
        """Record a page that was read."""
        if page.records:
            self._active_at = page.records[-1].arrival_time
            self.read_to = Position.after(page.records[-1].sequence_number)
            if self._pins:
                self._pins, self._pinned = False, Position.at(page.records[0].sequence_number)
        if page.millis_behind_latest == 0 and page.as_of is not None:
            self._caught_up_at = page.as_of

    def expiry_reported(self) -> None:
        """Record that expired records were reported. If the shard is idle, this is stored soon, or a restart would repeat it."""
        self._active_at = 0.0

    def skip(self, found: RecordList | Undeliverable) -> RecordList | Undeliverable | None:
        """Return the records after the start position, which may be inside an aggregate. None: all are before it."""
        if not self._skipping:
            return found
        begun_at = self._begun_at
        if isinstance(found, Undeliverable):
            return found if after(found.record) > begun_at else None
        if after(found[-1]) <= begun_at:
            return None
        self._skipping = False
        return found if after(found[0]) > begun_at else [record for record in found if after(record) > begun_at]

    def delivered(self, record: ReceivedRecord[bytes]) -> None:
        """Record that all records up to one are passed to the application."""
        self._delivered = after(record)

    def discard(self, *, drained: bool) -> None:
        """Record that records that were read are discarded: reading begins again when no record is being handled.

        Args:
            drained: True if there was no record to discard.
        """
        if not self.restart_pending:
            self._idle_known = self._idle_until(drained)
        self.restart_pending = True

    def seek(self, position: Position, now: float, monotonic: float, *, prompt: bool) -> None:
        """Continue at another position, after `discard`.

        Args:
            position: The position.
            now: The time.
            monotonic: The time.
            prompt: True if LATEST may mean the moment at which reading begins again, if that is soon.
        """
        self._latest_until = monotonic + PROMPT_START if prompt and position == LATEST else -1.0
        self._idle_known = None
        self._seek_to = self._unsaved_seek = position.since(now - LATEST_MARGIN)
        self._pinned = None
        self._requested = None

    @property
    def seek_pending(self) -> bool:
        """True if records that were delivered and not started are to be discarded."""
        return self._seek_to is not None

    # Checkpoints.

    @property
    def done(self) -> Position:
        """The position after the completed records, or the start position before the first one."""
        return self._seek_to or self.progress.position or self._begun_at

    @property
    def delivered_done(self) -> bool:
        """True if every record that was delivered is completed."""
        return not self.progress and self.done == (self._delivered or self._begun_at)

    def request(self, record: ReceivedRecord[bytes]) -> None:
        """Record the application's request to checkpoint a record and all before it. It counts as completed."""
        position = after(record)
        if self._requested is None or position > self._requested:
            self._requested = position
        self.progress.finish_record(record)

    @property
    def checkpoint(self) -> Position | None:
        """The position that may be checkpointed now, or None."""
        requested = self._requested
        if len(self.progress):  # concurrent handling: never beyond the completed prefix
            if not self._manual:
                return self.done
            return None if requested is None else min(requested, self.done)
        if self._manual:
            return requested
        return self.done if requested is None else max(requested, self.done)

    @property
    def to_write(self) -> Write | None:
        """The checkpoint to write. None if it is stored already, or reading has not begun."""
        if self._acquired is None or self.end_stored:
            return None
        if self._unsaved_seek is not None:
            return Write(self._unsaved_seek, True)
        position = self.checkpoint
        if self._pinned is not None and (position is None or position < self._pinned):
            position = self._pinned
        return None if position in (None, self._written or self._acquired) else Write(position, False)

    @property
    def pin_pending(self) -> bool:
        """True if the position before the first record is to be stored in place of a start by time."""
        return self._pinned is not None and self._written is None

    def stored(self, write: Write) -> None:
        """Record that a checkpoint is stored."""
        if write.rewinds and self._unsaved_seek is write.position:
            self._unsaved_seek = None
        self._written, self._idle_written = write.position, None

    @property
    def may_end(self) -> bool:
        """True if the shard's end may be stored after its last record was delivered: all are completed.

        With manual checkpoints, the application must have checkpointed all of them.
        """
        if self._acquired is None:  # reading has not begun: the end is stored already
            return True
        if not self.delivered_done:
            return False
        return not self._manual or max(self._requested or self._acquired, self._acquired) >= self.done

    def store_end(self) -> None:
        """Record that the end of the shard is stored."""
        self.end_stored = True

    def idle_to_write(self, *, drained: bool) -> float | None:
        """Return the time up to which all records that arrived are checkpointed. None: the stored one is not much older.

        Args:
            drained: True if every record that was read was delivered.
        """
        until = None if self.end_stored else self._idle_until(drained)
        if until is None or (self._idle_written is not None and until - self._idle_written < IDLE_AFTER):
            return None
        return until

    def idle_stored(self, until: float) -> None:
        """Record that a result of `idle_to_write` is stored."""
        self._idle_written = until

    def _idle_until(self, drained: bool) -> float | None:
        """Return the time up to which all records are checkpointed. None: unknown, or not much later than the last record."""
        if self.restart_pending or self._caught_up_at is None or self._caught_up_at - self._active_at < IDLE_AFTER:
            return None
        if not drained or not self.delivered_done:
            return None
        done = self.done
        if done.sequence_number != self.read_to.sequence_number:
            return None  # later records were read and cut at `until`
        return self._caught_up_at if done.is_number and done == (self._written or self._acquired) else None

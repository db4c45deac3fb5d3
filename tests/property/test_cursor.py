"""A checkpoint is the completed prefix of the delivered records, through restarts, seeks and manual requests."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kinstream import Position, ReceivedRecord
from kinstream.consume.fetch.fetcher import Page
from kinstream.consume.fetch.position import TRIM_HORIZON
from kinstream.consume.shard.cursor import Cursor
from kinstream.consume.shard.progress import RunningRecord, after

USER_RECORDS = 3
"""User records in each record of Kinesis."""

LAST = 8
"""Number of the last record of the shard."""

TARGETS = st.one_of(
    st.builds(Position.at, st.integers(1, LAST).map(str), st.integers(0, USER_RECORDS - 1)),
    st.builds(Position.after, st.integers(1, LAST).map(str), st.none() | st.integers(0, USER_RECORDS - 1)),
    st.just(TRIM_HORIZON),
)


def user_record(index: int) -> ReceivedRecord[bytes]:
    """Return the user record with an index in the shard. Its sequence number and its arrival time are those of its aggregate."""
    number, inner = divmod(index, USER_RECORDS)
    return ReceivedRecord(b"", str(number + 1), float(number + 1), "k", subsequence_number=inner)


def first_after(position: Position) -> int:
    """Return the index of the first user record after a position."""
    return next((i for i in range(LAST * USER_RECORDS) if after(user_record(i)) > position), LAST * USER_RECORDS)


class CursorMachine(RuleBasedStateMachine):
    """Drives a cursor as a reader does, with a model: indexes of the user records that were delivered and completed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    @initialize(manual=st.booleans(), concurrent=st.booleans(), position=TARGETS)
    def begin(self, manual: bool, concurrent: bool, position: Position) -> None:
        self.manual = manual
        self.concurrent = concurrent
        self.cursor = Cursor(manual=manual)
        assert self.cursor.to_write is None
        assert self.cursor.may_end  # nothing was begun
        assert self.cursor.begin(position, None, self.now).late == position
        self.base = position  # the checkpoint at the start, or the target of the last seek
        self.stored = position
        self.requested: int | None = None  # index of the last record that the application checkpointed since then
        self.sought = False
        self.start_at(position)

    def start_at(self, position: Position) -> None:
        self.next = self.first = first_after(position)
        self.fetched = max(int(position.sequence_number) - 1 if position.is_number else 0, 0) * USER_RECORDS
        self.begun_at = position
        self.running: dict[int, RunningRecord] = {}
        self.completed: set[int] = set()

    @property
    def prefix(self) -> int:
        """The number of user records up to the first one that is not completed."""
        return next((i for i in range(self.first, self.next) if i not in self.completed), self.next)

    # Reading and handling.

    @precondition(lambda self: not self.cursor.restart_pending and self.fetched < LAST * USER_RECORDS)
    @rule(records=st.integers(1, 4))
    def deliver(self, records: int) -> None:
        first, end = self.fetched, min(self.fetched + records * USER_RECORDS, LAST * USER_RECORDS)
        batch = [user_record(i) for i in range(first, end)]
        self.cursor.received(Page(batch, 0, as_of=self.now))
        self.fetched = end
        found = self.cursor.skip(batch)
        expected = list(range(max(first, self.first), end))
        if not expected:
            assert found is None
            return
        assert isinstance(found, list)
        assert [after(record) for record in found] == [after(user_record(i)) for i in expected]
        self.cursor.delivered(found[-1])
        self.next = end
        for index, record in zip(expected, found, strict=True):
            if self.concurrent:
                self.running[index] = self.cursor.progress.begin(record)
            else:
                self.running[index] = RunningRecord(record)

    @precondition(lambda self: self.running)
    @rule(choice=st.integers(0, 1 << 16))
    def complete(self, choice: int) -> None:
        index = sorted(self.running)[choice % len(self.running) if self.concurrent else 0]
        running = self.running.pop(index)
        if self.concurrent:
            self.cursor.progress.finish(running)
        else:
            self.cursor.progress.last = running.record
        self.completed.add(index)

    # The reader ignores requests for records that were delivered before a seek.
    @precondition(lambda self: self.next > self.first and not self.cursor.seek_pending)
    @rule(choice=st.integers(0, 1 << 16))
    def request(self, choice: int) -> None:
        """The application checkpoints a record that was delivered, perhaps before its handler has returned."""
        index = self.first + choice % (self.next - self.first)
        if not self.concurrent and index >= self.prefix:
            index = self.prefix  # the record that is being handled
            if index >= self.next:
                return
        self.cursor.request(user_record(index))
        self.requested = max(index, -1 if self.requested is None else self.requested)
        if self.concurrent:
            self.completed.add(index)
            self.running.pop(index, None)

    # Restarts.

    @rule(drained=st.booleans())
    def pause(self, drained: bool) -> None:
        self.cursor.discard(drained=drained)

    @rule(position=TARGETS)
    def seek(self, position: Position) -> None:
        self.cursor.discard(drained=False)
        self.cursor.seek(position, self.now, 0.0, prompt=True)
        assert self.cursor.seek_pending
        self.base, self.requested, self.sought = position, None, True

    @precondition(lambda self: self.cursor.restart_pending)
    @rule()
    def restart(self) -> None:
        if self.cursor.seek_pending:
            self.cursor.progress.forget()
        else:
            while self.running:  # records that were started are completed first
                self.complete(0)
        done = self.cursor.done
        beginning = self.cursor.restart(self.now, 0.0)
        assert beginning.position == beginning.late == done
        assert not self.cursor.seek_pending
        self.start_at(done)

    # Storing.

    @rule()
    def store(self) -> None:
        write = self.cursor.to_write
        if write is None:
            return
        assert write.rewinds is self.sought
        if write.rewinds:
            assert write.position == self.base
        else:
            assert write.position >= self.stored, "a checkpoint went back without a seek"
        self.cursor.stored(write)
        self.stored, self.sought = write.position, False
        assert write.rewinds or self.cursor.to_write is None

    @rule(seconds=st.integers(1, 10_000))
    def sleep(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def checkpoint_never_passes_a_record_that_is_not_completed(self) -> None:
        write = self.cursor.to_write
        if write is None or self.sought:
            return
        limit = self.prefix
        if self.requested is not None and not self.concurrent:
            limit = max(limit, self.requested + 1)  # the application's word completes it
        done = self.begun_at if limit == self.first else after(user_record(limit - 1))
        assert write.position <= max(done, self.base)

    @invariant()
    def completed_position_is_the_prefix(self) -> None:
        if self.cursor.seek_pending:
            assert self.cursor.done == self.base
        else:
            assert self.cursor.done == (
                self.begun_at if self.prefix == self.first else after(user_record(self.prefix - 1))
            )

    @invariant()
    def end_is_stored_only_after_all_that_was_delivered_is_completed(self) -> None:
        if self.cursor.may_end and not self.cursor.seek_pending:
            assert self.prefix == self.next
            assert not self.running
            if self.manual:
                assert self.next == self.first or (self.requested is not None and self.requested >= self.next - 1)

    @invariant()
    def idle_time_is_stored_only_if_all_records_are_checkpointed(self) -> None:
        if self.cursor.idle_to_write(drained=True) is not None:
            assert self.prefix == self.next == self.fetched
            assert self.cursor.done in (self.stored, self.base)


TestCursor = CursorMachine.TestCase
TestCursor.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)

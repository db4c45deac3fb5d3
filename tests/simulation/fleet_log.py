"""Log of a simulated fleet, and the rules that it must keep: checked at each write of the table and at each batch."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.doubles.simulated_table import Applied, SimulatedTable
from tests.simulation.sharded_stream import ShardedStream

from kinstream.consume.lease.lease import EXTRAS, Lease, lease_of
from kinstream.consume.lease.row import RowKind


@dataclass(eq=False)
class Turn:
    """One uninterrupted ownership of a shard, as the process sees it.

    Attributes:
        process: Name of the process.
        worker_id: Its worker id.
        shard_id: The shard.
        granted: Time at which it began.
        foreign: True if the process is a model of a KCL worker.
        began: Time of its first batch. None: none yet.
        revoked: Time at which the process was told to finish. It begins no batch then.
        completed: True once all records of the shard are completed in this turn.
        ended: Time of its end. None: it lasts.
        how: The way in which it ended.
    """

    process: str
    worker_id: str
    shard_id: str
    granted: float
    foreign: bool = False
    began: float | None = None
    revoked: float | None = None
    completed: bool = False
    ended: float | None = None
    how: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which no worker could read a shard that could be read.

    Attributes:
        shard_id: The shard.
        start: Its start.
        end: Its end.
        cause: The way in which the turn before ended, or "new" or "child".
    """

    shard_id: str
    start: float
    end: float
    cause: str

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass
class FleetLog:
    """The record of one simulation.

    Attributes:
        table: The table.
        stream: The stream.
        failover: The failover of all workers.
        handoff_timeout: The handoff timeout of all workers.
        steals: True if workers may take leases from live owners, as KCL 2.x workers do.
        violations: Rules that were broken, as text.
        turns: Turns of each shard.
        gaps: Times without an owner.
        moves: Changes of the reader of each shard: time, reader before, reader after.
        counts: Numbers for the table of figures.
        forgiven: Shards that are not judged any more, since an operator has deleted their rows.
        foreign: Worker ids of models of KCL workers.
        stopped: Processes that do not run now.
        trace: Events, as text.
    """

    table: SimulatedTable
    stream: ShardedStream
    failover: float
    handoff_timeout: float
    steals: bool = False
    violations: list[str] = field(default_factory=list)
    turns: defaultdict[str, list[Turn]] = field(default_factory=lambda: defaultdict(list))
    gaps: list[Gap] = field(default_factory=list)
    moves: defaultdict[str, list[tuple[float, str, str]]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: Counter[str] = Counter()
        self._sent: dict[tuple[str, str], float] = {}
        self._holders: dict[str, str] = {}
        self._readers: dict[str, str] = {}
        self._handoffs: dict[str, float] = {}
        self._uncovered: dict[str, tuple[float, str]] = {}
        self._renewed_by_id: dict[tuple[str, str], float] = {}
        self._announced: dict[str, tuple[str, float]] = {}
        self.forgiven: set[str] = set()
        self.foreign: set[str] = set()
        self.stopped: set[str] = set()
        self.trace: list[str] = []
        self.table.observers.append(self._applied)
        for shard_id in self.stream.shards:
            self._uncovered[shard_id] = (0.0, "new")

    def violation(self, rule: str, detail: str) -> None:
        self.violations.append(f"{self._loop.time():.3f} s: {rule}: {detail}")

    def note(self, text: str) -> None:
        self.trace.append(f"{self._loop.time():9.3f} {text}")

    def forgive(self, shard_id: str) -> None:
        """Stop judging a shard, since an operator deletes its row."""
        self.forgiven.add(shard_id)

    def done(self, shard_id: str) -> int:
        """Return the number of first records that were completed."""
        return self._done[shard_id]

    # The table.

    def _applied(self, change: Applied) -> None:
        if change.write.kind is not RowKind.LEASE:
            self.note(f"{change.process} wrote {change.write.kind.value} {change.write.key}")
            if (
                change.write.kind is RowKind.WORKER
                and self._announced.get(change.worker_id, ("",))[0] != change.process
            ):
                self._announced[change.worker_id] = change.process, self._loop.time()
            extras = None if change.after is None else change.after.values.get(EXTRAS)
            if change.write.kind is RowKind.WORKER and isinstance(extras, dict) and extras.get("ended"):
                self.stopped.add(change.process)
            return
        key = change.write.key
        before = None if change.before is None else lease_of(change.before)
        after = None if change.after is None else lease_of(change.after)
        self.note(f"{change.process} wrote {key}: {_text(before)} -> {_text(after)} sent {change.sent:.3f}")
        if after is None:
            if before is not None and not before.checkpoint.ended:
                self.violation("an unfinished lease was deleted", f"{key} by {change.process}")
            return
        self._judge_checkpoint(change, before, after)
        self._judge_reader(change, before, after)
        if (after.checkpoint_owner or after.owner) == change.worker_id:
            place = change.process, key
            if before is None or after.counter != before.counter:  # a renewal
                self._sent[place] = max(self._sent.get(place, -1.0), change.sent)
                self._renewed_by_id[change.worker_id, key] = change.sent
            self._holders[key] = change.process
        elif before is None or (before.checkpoint_owner or before.owner) != (after.checkpoint_owner or after.owner):
            self._holders.pop(key, None)
        if after.checkpoint.ended and (before is None or not before.checkpoint.ended):
            self._uncovered.pop(key, None)
            self._parents_ended(key)

    def _judge_checkpoint(self, change: Applied, before: Lease | None, after: Lease) -> None:
        key, shard = after.key, self.stream.shards[after.shard_id]
        if key in self.forgiven:
            return
        if after.checkpoint.ended and shard.closed is None:
            self.violation("SHARD_END of an open shard", f"{key} by {change.process}")
            return
        if before is not None and after.checkpoint < before.checkpoint:
            self.violation(
                "a checkpoint went back", f"{key}: {before.checkpoint} to {after.checkpoint} by {change.process}"
            )
        stored = shard.completed_at(after.checkpoint)
        if stored > self._done[key]:
            self.violation(
                "a checkpoint of records that were not completed",
                f"{key}: {stored} of {self._done[key]} by {change.process}",
            )
        if before is not None and after.checkpoint != before.checkpoint:
            self.counts["checkpoints"] += 1

    def _judge_reader(self, change: Applied, before: Lease | None, after: Lease) -> None:
        key = after.key
        if before is None:
            return
        if after.checkpoint_owner is None:
            began = self._handoffs.pop(key, None)
        elif before.checkpoint_owner is None:
            self._handoffs[key] = self._loop.time()
            began = None
            self.counts["handoffs"] += 1
        else:
            began = self._handoffs.get(key)
        old = before.checkpoint_owner or before.owner
        new = after.checkpoint_owner or after.owner
        if new is not None and new != self._readers.get(key):
            former = self._readers.get(key)
            if former is not None and not after.checkpoint.ended:
                self.moves[key].append((self._loop.time(), former, new))
            self._readers[key] = new
        if old == new or old is None or self.steals or key in self.forgiven or change.worker_id == old:
            return
        holder = self._holders.get(key)
        if holder is None or holder in self.stopped:
            return
        forced = began is not None and self._loop.time() - began >= self.handoff_timeout
        if not forced and self._valid(holder, key) and change.process not in self.foreign:
            self.violation(
                "a lease was taken from a live owner", f"{key} of {holder} by {change.process}: {_text(before)}"
            )

    def _valid(self, process: str, key: str) -> bool:
        """Return True if a process renewed a lease within the failover, counted from before it sent the request."""
        sent = self._sent.get((process, key))
        return sent is not None and self._loop.time() < sent + self.failover

    # The consumers.

    def granted(self, turn: Turn, start: int) -> None:
        key = turn.shard_id
        self.note(f"{turn.process} is granted {key} from record {start}")
        if key not in self.forgiven and start > self._done[key]:
            self.violation("records are skipped", f"{key}: starts at {start} of {self._done[key]} by {turn.process}")
        self.turns[key].append(turn)
        self._covered(key)

    def resumed(self, turn: Turn) -> None:
        """Note that a stopped process runs again. It reads on if its lease has not expired, a KCL until a write is refused."""
        if turn.ended is None and (turn.foreign or self._valid(turn.process, turn.shard_id)):
            self._covered(turn.shard_id)

    def _covered(self, key: str) -> None:
        since = self._uncovered.pop(key, None)
        if since is not None:
            self.gaps.append(Gap(key, since[0], self._loop.time(), since[1]))

    def begun(self, turn: Turn, start: int) -> None:
        """Judge the beginning of a batch."""
        key, now = turn.shard_id, self._loop.time()
        self.counts["batches"] += 1
        if key in self.forgiven:
            return
        if turn.began is None:
            turn.began = now
        if not turn.foreign and not self._valid(turn.process, key) and not self._renewed_by_twin(turn):
            sent = self._sent.get((turn.process, key), -1.0)
            self.violation(
                "a batch began after self-expiry", f"{key} by {turn.process}: last renewal was sent at {sent:.3f} s"
            )
        if start > self._done[key]:
            self.violation("records are skipped", f"{key}: {start} of {self._done[key]} by {turn.process}")
        for parent in self.stream.shards[key].parents:
            self._judge_parent(turn, parent)
        self._judge_twins(turn)
        if turn.foreign or self.steals:
            return
        for other in self.turns[key]:
            if (
                other.worker_id != turn.worker_id
                and other.ended is None
                and other.began is not None
                and not other.foreign
                and (other.revoked is None or now - other.revoked < self.handoff_timeout)
                and self._valid(other.process, key)
                and not self._replaced(other)
                and not self._replaced(turn)
            ):
                self.violation("two workers deliver one shard", f"{key} by {turn.process} and {other.process}")

    def _renewed_by_twin(self, turn: Turn) -> bool:
        """Return True if another process with the worker id of a turn has renewed the lease, so that no other worker may own it.

        A retry of a write whose response was lost may find this renewal, and takes it for its own: the rows are equal. Two
        readers with one worker id are judged by `_judge_twins`.
        """
        sent = self._renewed_by_id.get((turn.worker_id, turn.shard_id))
        return sent is not None and self._loop.time() < sent + self.failover

    def _replaced(self, turn: Turn) -> bool:
        """Return True if a newer process has the worker id of a turn, so that this worker may give the shard to another one.

        The older process notices it with its next announcement, which may fail once.
        """
        process, since = self._announced.get(turn.worker_id, (turn.process, 0.0))
        return process != turn.process and self._loop.time() - since < 2 * self.failover + 2

    def _judge_twins(self, turn: Turn) -> None:
        """Two processes with one worker id may both read a shard until their first renewals, at most until one of them expires.

        Renewals that fail by the weather may leave only the expiry.
        """
        weather = self.table.weather
        fails = (
            weather.slow or weather.unsent or weather.lost or weather.cut or weather.late or weather.throttled_writes
        )
        old = self._loop.time() - (self.failover if fails else self.failover / 2 + 2)
        for other in self.turns[turn.shard_id]:
            if (
                other.worker_id == turn.worker_id
                and other.process != turn.process
                and other.ended is None
                and other.process not in self.stopped
                and max(turn.granted, other.granted) < old
                and self._valid(other.process, turn.shard_id)
            ):
                self.violation(
                    "two processes with one worker id read a shard",
                    f"{turn.shard_id} by {turn.process} and {other.process}",
                )

    def _judge_parent(self, turn: Turn, parent: str) -> None:
        shard = self.stream.shards[parent]
        if parent in self.forgiven:
            return
        if shard.closed is None or self._done[parent] < shard.records(shard.closed):
            self.violation("a child was read before its parent", f"{turn.shard_id} by {turn.process}")
        row = self.table.rows.get((RowKind.LEASE, parent))
        if row is not None and not lease_of(row).checkpoint.ended:
            same = any(other.process == turn.process and other.completed for other in self.turns[parent])
            if not same:
                self.violation(
                    "a child was read before the SHARD_END of its parent", f"{turn.shard_id} by {turn.process}"
                )

    def completed(self, turn: Turn, start: int, end: int) -> None:
        if start <= self._done[turn.shard_id]:
            self.counts["records"] += end - start
            self.counts["records handled again"] += max(0, min(self._done[turn.shard_id], end) - start)
            self._done[turn.shard_id] = max(self._done[turn.shard_id], end)

    def checkpointed(self, turn: Turn, done: int) -> None:
        """Judge the row after a checkpoint, or a release with the last one, has succeeded."""
        key = turn.shard_id
        row = self.table.rows.get((RowKind.LEASE, key))
        if row is None or turn.foreign or key in self.forgiven:
            return
        stored = self.stream.shards[key].completed_at(lease_of(row).checkpoint)
        if stored < done:
            self.violation("a checkpoint that succeeded is not stored", f"{key}: {stored} of {done} by {turn.process}")

    def ended(self, turn: Turn, how: str) -> None:
        """Note that a turn is over: its process delivers nothing more of it."""
        if turn.ended is None:
            turn.ended, turn.how = self._loop.time(), how
            self.note(f"{turn.process} ends {turn.shard_id}: {how}")
            self.uncover(turn, how)

    def uncover(self, turn: Turn, cause: str) -> None:
        """Note that a process cannot read a shard now."""
        key = turn.shard_id
        row = self.table.rows.get((RowKind.LEASE, key))
        finished = row is None or lease_of(row).checkpoint.ended
        others = any(
            other.ended is None and other is not turn and other.process not in self.stopped for other in self.turns[key]
        )
        if not finished and not others and key not in self._uncovered:
            self._uncovered[key] = self._loop.time(), cause

    def _parents_ended(self, key: str) -> None:
        for child in self.stream.shards[key].children:
            parents = self.stream.shards[child].parents
            rows = [self.table.rows.get((RowKind.LEASE, parent)) for parent in parents]
            if all(row is None or lease_of(row).checkpoint.ended for row in rows):
                if any(turn.ended is None for turn in self.turns[child]):
                    continue
                row = self.table.rows.get((RowKind.LEASE, child))
                if row is not None and not lease_of(row).checkpoint.ended:
                    self._uncovered.setdefault(child, (self._loop.time(), "child"))

    def restart_gaps(self) -> None:
        """Count the times without a reader from now on."""
        self._uncovered = {key: (self._loop.time(), cause) for key, (_, cause) in self._uncovered.items()}

    def uncovered(self) -> dict[str, tuple[float, str]]:
        """Return the shards that no worker reads now: since when, and the cause."""
        return {key: since for key, since in self._uncovered.items() if key not in self.forgiven}


def _text(lease: Lease | None) -> str:
    if lease is None:
        return "none"
    handoff = f"<{lease.checkpoint_owner}" if lease.checkpoint_owner else ""
    return f"{lease.owner}{handoff}#{lease.counter}@{lease.checkpoint}"

"""Text of a survey of a lease table, for a terminal or a file. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from kinstream.cli.leases.survey import LeaseReport, LeaseState, StreamReport, Survey, WorkerReport
from kinstream.cli.printable import printable
from kinstream.cli.text_table import table
from kinstream.cli.time_span import time_span
from kinstream.consume.fetch.position import time_text
from kinstream.consume.lease.lease import BEFORE_RECORD, WHOLE_AGGREGATE

NAMED = 8
"""Maximum number of shards that a line names. JSON has all."""


def lines(survey: Survey, width: int | None) -> Iterator[str]:
    """Return the lines of a survey.

    Args:
        survey: The survey.
        width: Columns of the terminal. None: cells are not shortened, and lines are not wrapped.
    """
    yield from _wrapped(f"{survey.application}: {survey.store}", width)
    if survey.mode is not None:
        yield from _wrapped(f"Mode {survey.mode}: {survey.mode_meaning}.", width)
    yield from _wrapped(_leader(survey), width)
    if survey.leases:
        yield from _wrapped(_observed(survey), width)
    if survey.workers:
        yield ""
        yield from table(
            ("WORKER", "KIND", "STATE", "SHARDS", "ANNOUNCED"),
            [_worker(one, survey.observed) for one in survey.workers],
            width,
        )
    for stream in survey.streams:
        yield ""
        if stream.identifier is not None:
            yield printable(f"Stream {stream.identifier}")
        if leases := [lease for lease in survey.leases if lease.stream == stream.identifier]:
            yield from _leases(leases, width)
            yield ""
        for i, sentence in enumerate(_stream(stream)):
            yield from _wrapped(sentence, width, "  " if i else "")
    if survey.damaged:
        yield ""
        yield "Damaged rows:"
        for row in survey.damaged:
            yield from _wrapped(row.problem, width, "  ")
    if survey.notes:
        yield ""
        yield "Notes:"
        for note in survey.notes:
            yield from _wrapped(note, width, "  ")


def position_text(checkpoint: str, subsequence: int) -> str:
    """Return a checkpoint as text: the sequence number, and the place in an aggregate in words if it is a special one."""
    if not checkpoint.isdecimal():
        return checkpoint
    if subsequence == BEFORE_RECORD:
        return f"before {checkpoint}"
    return checkpoint if subsequence == WHOLE_AGGREGATE else f"{checkpoint}/{subsequence}"


def few(names: Sequence[str]) -> str:
    """Return names as text, and the number of those that are left out."""
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED:,} more"


def _leader(survey: Survey) -> str:
    leader = survey.leader
    if leader is None:
        return "Leader: none."
    state = {True: "renewed during the observation", False: "not renewed during the observation", None: "not observed"}
    released = ", released" if leader.released else ""
    return f"Leader: {leader.worker} (lock of {leader.lock_seconds:g} s, {state[leader.renewed]}{released})."


def _observed(survey: Survey) -> str:
    if not survey.observed:
        return "Not observed: a renewal of a lease shows that its owner is alive (--observe SECONDS)."
    owned = [lease for lease in survey.leases if lease.renewed is not None and lease.state is not LeaseState.FINISHED]
    renewed = sum(lease.renewed is True for lease in owned)
    return f"Observed for {survey.observed:.1f} s: {renewed:,} of {len(owned):,} unfinished leases with an owner were renewed."


def _worker(worker: WorkerReport, observed: float) -> tuple[str, ...]:
    state = {True: "alive", False: "not alive", None: "silent" if observed else "?"}[worker.alive]
    if worker.ended:
        state = "stopped"
    elif worker.leaving:
        state += " (leaving)"
    announced = "-" if worker.announced is None else f"{time_span(worker.announced)} ago"
    if worker.metrics:
        announced += " (" + ", ".join(f"{name} {value:g}" for name, value in sorted(worker.metrics.items())) + ")"
    if worker.weight != 1:
        announced += f", weight {worker.weight:g}"
    return worker.worker, worker.kind, state, f"{worker.leases:,}", announced


def _leases(leases: list[LeaseReport], width: int | None) -> Iterator[str]:
    header = ("SHARD", "STATE", "OWNER", "CHECKPOINT", "COUNTER")
    rows = [
        (
            lease.shard_id,
            lease.state.value,
            lease.owner or "-",
            position_text(lease.checkpoint, lease.subsequence),
            str(lease.counter),
        )
        for lease in leases
    ]
    shown = table(header, rows, width)
    yield shown[0]
    for lease, line in zip(leases, shown[1:], strict=True):
        yield line
        for detail in _details(lease):
            yield from _wrapped(detail, width, "    ")


def _details(lease: LeaseReport) -> Iterator[str]:
    if lease.checkpoint_owner is not None:
        still = {True: "still renews it", False: "does not renew it", None: "still has it"}[lease.renewed]
        yield f"handed off to {lease.owner or 'no worker'}: {lease.checkpoint_owner} {still}"
    if lease.pending is not None:
        state = "" if lease.pending.state_bytes is None else f", with {lease.pending.state_bytes:,} bytes of state"
        yield f"prepared checkpoint {position_text(lease.pending.checkpoint, lease.pending.subsequence)}{state}"
    if lease.owner_switches:
        changes = "1 change" if lease.owner_switches == 1 else f"{lease.owner_switches:,} changes"
        yield f"{changes} of the owner since the last checkpoint"
    if lease.waits_for:
        yield f"waits for its parents: {few(lease.waits_for)}"
    elif lease.parents and lease.state is not LeaseState.FINISHED:
        yield f"parents: {few(lease.parents)}"
    if lease.children:
        yield f"children: {few(lease.children)}"
    if lease.idle_until is not None:
        yield f"no unread records before {time_text(lease.idle_until)}"


def _stream(stream: StreamReport) -> Iterator[str]:
    name = stream.name or stream.identifier
    if not stream.compared:
        yield (
            "The leases were not compared with the stream (--stream NAME)."
            if name is None
            else (f"Stream {name}: the leases were not compared with it.")
        )
    else:
        yield f"Stream {name}: {stream.open_shards:,} open and {stream.closed_shards:,} closed shards."
    problems = list(_differences(stream))
    if stream.compared and not problems:
        yield "The leases match the shards."
    yield from problems
    if stream.deletable:
        yield f"finished leases that the workers will delete: {few(_ids(stream, stream.deletable))}"


def _differences(stream: StreamReport) -> Iterator[str]:
    if stream.without_lease:
        yield f"SHARDS WITHOUT A LEASE: {few(stream.without_lease)}"
    if stream.without_shard:
        why = "they expired before they were read, or the stream was created again"
        yield f"LEASES WITHOUT A SHARD ({why}): {few(_ids(stream, stream.without_shard))}"
    if stream.unknown_checkpoints:
        yield (
            f"CHECKPOINTS THAT ARE NOT OF THIS STREAM (was it created again?): {few(_ids(stream, stream.unknown_checkpoints))}"
        )
    if stream.holes:
        ranges = [f"{one.starting_hash_key} to {one.ending_hash_key}" for one in stream.holes]
        yield f"HASH KEYS WITHOUT AN UNFINISHED LEASE: {few(ranges)}"


def _ids(stream: StreamReport, keys: list[str]) -> list[str]:
    """Return the shards of keys of leases."""
    return keys if stream.identifier is None else [key.removeprefix(f"{stream.identifier}:") for key in keys]


def _wrapped(text: str, width: int | None, indent: str = "") -> Iterable[str]:
    text = printable(text)
    if width is None:
        return (indent + text,)
    return textwrap.wrap(
        text,
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

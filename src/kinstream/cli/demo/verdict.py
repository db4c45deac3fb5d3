"""Verdict of the demo: compares the events sent, acknowledged and read."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from kinstream.cli.demo.flights import Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Counts of a run.

    Attributes:
        sent: Events to be written.
        taken: Events that Kinesis acknowledged.
        read: Records that were read.
        lost: Events that were not read.
        duplicated: Records of an event that had been read before.
        explained: Those of `duplicated` that a killed worker had handled.
        foreign: Records that match no event, because they were changed or never sent.
        disordered: Partition keys with an event that was read after a later one of the same key.
    """

    sent: int
    taken: int
    read: int
    lost: int
    duplicated: int
    foreign: int
    disordered: int
    explained: int = 0

    @property
    def good(self) -> bool:
        """True if every event was read once, except for explained duplicates, unchanged, and in the order of its key."""
        return (
            self.sent == self.taken == self.read - self.explained
            and self.duplicated == self.explained
            and not (self.lost or self.foreign or self.disordered)
        )

    def __str__(self) -> str:
        written = f"{self.taken:,}" if self.taken == self.sent else f"{self.taken:,} of {self.sent:,}"
        keys = f"{self.disordered:,} key{'' if self.disordered == 1 else 's'}"
        parts = [
            f"{written} written",
            f"{self.read:,} read",
            f"{self.lost:,} lost",
            f"{self.duplicated:,} duplicated",
            f"order broken for {keys}" if self.disordered else "order per key kept",
        ]
        if self.foreign:
            parts.append(f"{self.foreign:,} never sent")
        return ", ".join(parts)


def judge(sent: Sequence[Event], taken: int, read: Sequence[Event], repeatable: Set[Event] = frozenset()) -> Verdict:
    """Compare the events sent with the records read.

    An event is identified by key and data, so a changed byte counts as one lost and one foreign event.

    Args:
        sent: Events in the order required within each key. No two are equal.
        taken: Number of events that Kinesis acknowledged.
        read: Records in the order of reading, parent shards before their children.
        repeatable: Events that a killed worker had handled. Duplicates of these are explained.
    """
    place = {event: i for i, event in enumerate(sent)}
    if len(place) != len(sent):
        raise ValueError("two events are the same, so a loss or a duplicate could not be detected")
    seen: set[Event] = set()
    newest: dict[str, int] = {}
    disordered: set[str] = set()
    duplicated = explained = foreign = 0
    for event in read:
        if event not in place:
            foreign += 1
        elif event in seen:
            duplicated += 1
            explained += event in repeatable
        else:
            seen.add(event)
            if place[event] < newest.get(event.key, -1):
                disordered.add(event.key)
            newest[event.key] = place[event]
    return Verdict(
        sent=len(sent),
        taken=taken,
        read=len(read),
        lost=len(sent) - len(seen),
        duplicated=duplicated,
        foreign=foreign,
        disordered=len(disordered),
        explained=explained,
    )

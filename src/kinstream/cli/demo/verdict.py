"""What became of the events: sent, taken and read are compared, nothing is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kinstream.cli.demo.flights import Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The counts of a run.

    Attributes:
        sent: Events that were to be written.
        taken: Events that Kinesis said it wrote.
        read: Records that came back.
        lost: Events that never came back.
        duplicated: Records that came back although their event had come back before.
        foreign: Records that are none of the events: changed on the way, or never sent.
        disordered: Partition keys with an event that came back after a later one of the same key.
    """

    sent: int
    taken: int
    read: int
    lost: int
    duplicated: int
    foreign: int
    disordered: int

    @property
    def good(self) -> bool:
        """Whether every event came back once, as it was, in the order of its key."""
        return self.sent == self.taken == self.read and not (
            self.lost or self.duplicated or self.foreign or self.disordered
        )

    def __str__(self) -> str:
        order = f"order broken for {self.disordered} keys" if self.disordered else "order per key kept"
        parts = [f"{self.taken} in", f"{self.read} out", f"{self.lost} lost", f"{self.duplicated} duplicated", order]
        if self.foreign:
            parts.append(f"{self.foreign} never sent")
        if self.taken != self.sent:
            parts.append(f"{self.sent} were to be written")
        return ", ".join(parts)


def judge(sent: Sequence[Event], taken: int, read: Sequence[Event]) -> Verdict:
    """Compare what was sent with what was read.

    An event is known by its whole content, key and data: so a changed byte is a loss and a stranger, not a match.

    Args:
        sent: The events in the order in which those of one key must stay. No two are the same.
        taken: How many of them Kinesis acknowledged.
        read: What came back, in the order of reading, parent shards before their children.
    """
    place = {event: i for i, event in enumerate(sent)}
    if len(place) != len(sent):
        raise ValueError("two events are the same: neither a loss nor a duplicate could be told")
    seen: set[Event] = set()
    newest: dict[str, int] = {}
    disordered: set[str] = set()
    duplicated = foreign = 0
    for event in read:
        if event not in place:
            foreign += 1
        elif event in seen:
            duplicated += 1
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
    )

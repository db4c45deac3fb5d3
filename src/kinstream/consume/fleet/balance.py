"""Balance of the leases over the workers: assignments and handoffs by the leader, and successors of a leaving worker. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from kinstream.consume.fleet.view import View
from kinstream.consume.lease.row import Write


class MoveKind(StrEnum):
    """Way in which a lease gets another owner."""

    ASSIGN = "assign"
    """It had no reader that is alive."""
    HAND_OFF = "hand_off"
    """Its reader completes the records being handled first."""
    FORCE = "force"
    """Its reader has not completed a handoff in time."""


class Move(msgspec.Struct, frozen=True):
    """A decision about one lease.

    Attributes:
        key: Key of the lease.
        kind: The way.
        reader: The worker that has read the shard so far. None: no worker.
        to: The new owner.
        write: The write that executes it. If it is refused, the lease has changed, and the next scan decides again.
    """

    key: str
    kind: MoveKind
    reader: str | None
    to: str
    write: Write


def moves(view: View, me: str, *, handoff_timeout: float) -> list[Move]:
    """Return the decisions of the leader after a scan. Empty if this worker does not lead.

    Leases without a reader that is alive come first. A lease whose handoff has lasted for `handoff_timeout` and one failover is
    transferred by force. Then leases are handed off until each worker has its share, rounded down or up. At rest there are none.

    Args:
        view: The rows. It includes the result of earlier decisions.
        me: Id of this worker.
        handoff_timeout: Seconds for which a worker may complete the records being handled.
    """
    raise NotImplementedError


def successors(view: View, me: str) -> dict[str, str | None]:
    """Return the next owner of each lease that a worker reads, so that the remaining workers are in balance. None: no worker.

    Args:
        view: The rows.
        me: Id of the worker that leaves.
    """
    raise NotImplementedError


def successor(view: View, key: str, me: str) -> str | None:
    """Return the next owner of one lease of a worker that leaves, as `successors`. None: no worker.

    Args:
        view: The rows.
        key: Key of the lease.
        me: Id of the worker that leaves.
    """
    raise NotImplementedError


def uneven(view: View) -> bool:
    """Return True if a worker has more or fewer leases than its share, rounded up or down, or a lease has no reader."""
    raise NotImplementedError

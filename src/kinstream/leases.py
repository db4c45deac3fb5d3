"""Interface of lease stores: the names that a store of one's own needs.

A store implements `LeaseStore` and `LeaseTable`. The workers call `LeaseTable` with a `Write`, and get `Row`, `Written` and
`Listing` back. `Condition.holds` and `Write.applied` decide the result of a write, so that a store has no rules of its own.
"""

from kinstream.consume.lease.changes import recognized
from kinstream.consume.lease.lease_store import (
    SEVERAL_STREAMS,
    LeaseStore,
    LeaseTable,
    MemoryLeaseStore,
    MemoryLeaseTable,
)
from kinstream.consume.lease.row import (
    Change,
    Condition,
    Delete,
    Listing,
    Put,
    Row,
    RowKind,
    Update,
    Value,
    Write,
    Written,
)

__all__ = [
    "SEVERAL_STREAMS",
    "Change",
    "Condition",
    "Delete",
    "LeaseStore",
    "LeaseTable",
    "Listing",
    "MemoryLeaseStore",
    "MemoryLeaseTable",
    "Put",
    "Row",
    "RowKind",
    "Update",
    "Value",
    "Write",
    "Written",
    "recognized",
]

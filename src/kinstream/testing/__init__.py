"""Utilities for tests: all records of a stream, a check of their order, and a clock that is advanced manually.

The fixtures of pytest are in `kinstream.pytest_plugin`.
"""

from typing import TYPE_CHECKING

from kinstream.lazy import names_of

if TYPE_CHECKING:
    from kinstream.testing.clock import ManualClock
    from kinstream.testing.order import assert_in_order
    from kinstream.testing.read import consume_all

__all__ = ["ManualClock", "assert_in_order", "consume_all"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = names_of(
        globals(),
        {
            "ManualClock": "kinstream.testing.clock",
            "assert_in_order": "kinstream.testing.order",
            "consume_all": "kinstream.testing.read",
        },
    )

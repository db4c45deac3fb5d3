"""Utilities for tests: a clock that is advanced manually."""

from kinstream.testing.clock import ManualClock

__all__ = ["ManualClock"]

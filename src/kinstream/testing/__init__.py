"""What tests of your own need: a clock that you move."""

from kinstream.testing.clock import ManualClock

__all__ = ["ManualClock"]

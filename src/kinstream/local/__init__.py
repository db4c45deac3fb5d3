"""A Kinesis on your own machine, for tests and for work without a network."""

from kinstream.local.server import Server

__all__ = ["Server"]

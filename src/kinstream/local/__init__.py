"""A Kinesis on your own machine, for tests and for work without a network."""

from kinstream.extra import needs_local

with needs_local("kinstream.local"):
    from kinstream.local.control import Call, Catch, Catching
    from kinstream.local.limits import Limits
    from kinstream.local.server import Server

__all__ = ["Call", "Catch", "Catching", "Limits", "Server"]

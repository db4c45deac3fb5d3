"""The same classes for threads: every call returns when it is done.

One implementation: each object hands its work to an event loop in a thread of its own (`kinstream.background`). The objects
may be used from any number of threads at once. Options, errors and results are those of `kinstream`; observers run in the event
loop's thread.
"""

from kinstream.blocking.client import Client
from kinstream.blocking.consumer import Consumer
from kinstream.blocking.delivery import Deliveries, Delivery
from kinstream.blocking.producer import Producer

__all__ = ["Client", "Consumer", "Deliveries", "Delivery", "Producer"]

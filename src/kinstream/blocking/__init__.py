"""Producer, consumer, client and ranges for threads: every call blocks until it has its result.

Each object runs the coroutines of `kinstream` on an event loop in its own thread (`kinstream.background`). Any number of threads
may use an object at the same time. Options, errors and results are those of `kinstream`. Observers run in the event loop's
thread.
"""

from typing import TYPE_CHECKING

from kinstream.lazy import names_of

if TYPE_CHECKING:
    from kinstream.blocking.client import Client
    from kinstream.blocking.consumer import Consumer
    from kinstream.blocking.delivery import Deliveries, Delivery
    from kinstream.blocking.producer import Producer
    from kinstream.blocking.ranges import positions, read_range

__all__ = ["Client", "Consumer", "Deliveries", "Delivery", "Producer", "positions", "read_range"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = names_of(
        globals(),
        {
            "Client": "kinstream.blocking.client",
            "Consumer": "kinstream.blocking.consumer",
            "Deliveries": "kinstream.blocking.delivery",
            "Delivery": "kinstream.blocking.delivery",
            "Producer": "kinstream.blocking.producer",
            "positions": "kinstream.blocking.ranges",
            "read_range": "kinstream.blocking.ranges",
        },
    )

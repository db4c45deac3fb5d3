"""Producer and consumer for callbacks: every method returns None immediately, and `callback(error, ...)` receives the result.

This is the contract of the AWSKinesisStreams library, item by item (docs/reference.md), extended by the producer and consumer
pipelines. No method and no constructor raises. Every error is passed to a callback, as a `KinesisError` with one of the three
values of `ErrorType` as its `type`.

Callbacks run on the object's own thread, one at a time, and may call further methods. An exception in a callback is logged and
affects no other call. Data is encoded before a method returns, so the application may change its objects afterwards.
"""

from typing import TYPE_CHECKING

from kinstream.lazy import names_of

if TYPE_CHECKING:
    from kinstream.callbacks.consumer import Consumer
    from kinstream.callbacks.producer import Producer

__all__ = ["Consumer", "Producer"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = names_of(
        globals(),
        {
            "Consumer": "kinstream.callbacks.consumer",
            "Producer": "kinstream.callbacks.producer",
        },
    )

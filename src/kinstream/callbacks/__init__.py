"""The same classes for callbacks: every call returns None at once, and `callback(error, ...)` runs when it is done.

This is the contract of the AWSKinesisStreams library, item by item (docs/reference.md), and the pipelines beside it. No method
and no constructor raises: whatever is wrong arrives in a callback, as a `KinesisError` whose `type` is one of the three of
`ErrorType`.

Callbacks run on the object's own thread, one at a time, and may call further methods. One that raises is logged and harms
nobody. Data is encoded before a method returns, so what it was made of may be changed afterwards.
"""

from kinstream.callbacks.consumer import Consumer
from kinstream.callbacks.producer import Producer

__all__ = ["Consumer", "Producer"]

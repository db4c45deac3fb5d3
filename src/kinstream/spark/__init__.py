"""Data source of Amazon Kinesis for Apache Spark 4: batch and streaming reads and writes.

Install `kinstream[spark]` on the driver and on all executors. See docs/spark.md.
"""

from typing import TYPE_CHECKING

from kinstream.lazy import names_of

if TYPE_CHECKING:
    from kinstream.spark.source import KinesisDataSource, dedupe_key

__all__ = ["KinesisDataSource", "dedupe_key"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = names_of(
        globals(), {"KinesisDataSource": "kinstream.spark.source", "dedupe_key": "kinstream.spark.source"}
    )

"""A streaming query with Trigger.AvailableNow into Parquet. Run as a program, it is killed between the offset and the commit.

Arguments: the stream, the folder of the checkpoint and the folder of the files. The environment has the account and the endpoint.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery


def new_session() -> SparkSession:
    """Start Spark on this machine, with this interpreter."""
    from pyspark.sql import SparkSession

    from kinstream.spark import KinesisDataSource

    os.environ.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    builder: Any = SparkSession.builder
    session: SparkSession = (
        builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    session.dataSource.register(KinesisDataSource)
    return session


def start(
    session: SparkSession, stream: str, checkpoint: Path, files: Path, written: Callable[[int], None] = lambda _: None
) -> StreamingQuery:
    """Start the query: a folder of Parquet files for each batch, which a repeated batch overwrites.

    Args:
        session: The session.
        stream: The stream, which is read from its oldest record.
        checkpoint: Folder of the checkpoint.
        files: Folder of the files.
        written: Called with the number of a batch after its files were written, before Spark commits it.
    """

    def write(batch: Any, number: int) -> None:
        batch.write.mode("overwrite").parquet(str(files / f"batch={number}"))
        written(number)

    frame = (
        session.readStream.format("kinesis")
        .option("streamName", stream)
        .option("initialPosition", "trim_horizon")
        .load()
    )
    return (
        frame.writeStream.foreachBatch(write)
        .option("checkpointLocation", str(checkpoint))
        .trigger(availableNow=True)
        .start()
    )


def kill(_: int) -> None:
    """Kill this process and its JVM, which are in one process group."""
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    start(new_session(), sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), kill).awaitTermination()

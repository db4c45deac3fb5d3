"""kinstream.spark in Spark 4."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def interpreter(batches: Any) -> Any:
    """Return the path of the interpreter of a Spark worker."""
    import pyarrow

    for _ in batches:
        yield pyarrow.RecordBatch.from_pydict({"path": [sys.executable]})


def test_workers_run_this_interpreter(spark: SparkSession) -> None:
    assert {row.path for row in spark.range(2).mapInArrow(interpreter, "path string").collect()} == {sys.executable}

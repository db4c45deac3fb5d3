"""Fixtures of the tests with real engines, which `make test-engines` runs in an environment of their own.

A test file is named after its engine. With another interpreter, such as that of `make test`, its tests are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HERE = Path(__file__).parent

LIMIT = 400
"""Maximum seconds of a test, a guard against hanging."""

PACKAGES = {"dlt": "dlt", "ray": "ray", "spark": "pyspark"}
"""The package of each engine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of engines that are not installed."""
    for item in items:
        if item.path.parent != HERE:
            continue
        item.add_marker(pytest.mark.timeout(LIMIT))
        item.add_marker(pytest.mark.filterwarnings("default"))  # engines have warnings of their own
        package = PACKAGES[item.path.stem.split("_")[1]]
        if importlib.util.find_spec(package) is None:
            item.add_marker(pytest.mark.skip(reason=f"{package} is not installed here: run `make test-engines`"))


def local_account() -> dict[str, str]:
    """Return environment variables with the credentials of a local Kinesis."""
    return {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """Run one Spark session for all tests."""
    from pyspark.sql import SparkSession

    os.environ.update(local_account(), PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    builder: SparkSession.Builder = SparkSession.builder
    session = (
        builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    yield session
    session.stop()

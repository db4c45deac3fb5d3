"""Fixtures of the tests with real engines, which `make test-engines` runs in an environment of their own.

With another interpreter, such as that of `make test`, the tests of engines that are not installed are skipped.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent

PACKAGES = {"test_dlt": "dlt", "test_ray": "ray", "test_spark": "py4j", "test_spark_reader": "pyspark"}
"""The package that the tests of each file need. py4j comes with the engine of Spark, pyspark also with its client alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of engines that are not installed."""
    for item in items:
        if item.path.parent != HERE:
            continue
        item.add_marker(pytest.mark.filterwarnings("default"))  # engines have warnings of their own
        package = PACKAGES[item.path.stem]
        if importlib.util.find_spec(package) is None:
            item.add_marker(pytest.mark.skip(reason=f"{package} is not installed here: run `make test-engines`"))


@pytest.fixture(scope="session")
def account() -> dict[str, str]:
    """Return environment variables with the credentials of a local Kinesis."""
    return {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}

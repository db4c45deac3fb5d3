"""Every example in a docstring runs, against a local Kinesis with one stream."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import boto3
import pytest

import kinstream
from kinstream.local import Server

ENGINES = {"kinstream.dlt", "kinstream.ray"}
"""Modules that need an engine. tests/engines runs the programs of their pages."""
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(kinstream.__path__, "kinstream.")
    if not name.startswith("kinstream.__main__") and name not in ENGINES
]
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [test for name in MODULES for test in FINDER.find(importlib.import_module(name)) if test.examples]


def test_the_classes_that_users_meet_first_have_examples() -> None:
    names = {test.name for test in EXAMPLES}
    assert names >= {
        "kinstream.aws.client.Client",
        "kinstream.producer.Producer",
        "kinstream.consumer.Consumer",
        "kinstream.blocking.client.Client",
        "kinstream.callbacks.producer.Producer",
        "kinstream.record.Record",
        "kinstream.local.server.Server",
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_example_runs(example: doctest.DocTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        kinesis = boto3.client(
            "kinesis",
            endpoint_url=server.url,
            region_name=server.region,
            aws_access_key_id=server.access_key_id,
            aws_secret_access_key=server.secret_access_key,
        )
        kinesis.create_stream(StreamName="events", ShardCount=1)
        kinesis.get_waiter("stream_exists").wait(StreamName="events", WaiterConfig={"Delay": 0.02})
        kinesis.put_record(StreamName="events", Data=b"one", PartitionKey="first")
        monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key_id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_access_key)
        monkeypatch.setenv("AWS_DEFAULT_REGION", server.region)
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(example, out=said.append, clear_globs=True)
    assert runner.failures == 0, "".join(said)

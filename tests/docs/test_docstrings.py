"""Every example in a docstring runs, against a local Kinesis with one stream."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import kinstream
from kinstream import blocking
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
        server.create_stream("events")
        with blocking.Producer("events", **server.client_options) as producer:
            producer.put_and_wait("one", "first")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(example, out=said.append, clear_globs=True)
    assert runner.failures == 0, "".join(said)

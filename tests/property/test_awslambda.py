"""Whatever an event is, its records are returned or ConfigError is raised; and whatever the data is, nothing is raised."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.doubles.lambda_events import event, sequence_number
from tests.property.test_unwrap import JSON, paths

from kinstream import ConfigError
from kinstream.awslambda import Failures, failed_batch, process, records
from kinstream.kpl.builder import Builder
from kinstream.kpl.message import MAGIC

DATA = st.binary(max_size=100) | st.binary(max_size=60).map(lambda rest: MAGIC + rest)


def aggregate(parts: list[bytes]) -> bytes:
    builder = Builder(1 << 20, 100)
    for part in parts:
        builder.add("key", None, part)
    return builder.finish()


@given(st.lists(DATA | st.lists(st.binary(max_size=20), min_size=1, max_size=4), max_size=5))
def test_every_payload_is_returned_or_deaggregated(payloads: list[bytes | list[bytes]]) -> None:
    batch = event(*(one if isinstance(one, bytes) else aggregate(one) for one in payloads))
    expected: list[tuple[bytes, str, int | None]] = []
    for number, one in enumerate(payloads):
        inner = [(one, None)] if isinstance(one, bytes) else [(part, index) for index, part in enumerate(one)]
        expected += [(data, sequence_number(number), index) for data, index in inner]
    assert [(one.data, one.sequence_number, one.subsequence_number) for one in records(batch)] == expected


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), max_size=6), st.booleans())
def test_response_names_each_kinesis_record_with_a_failure(parts: list[list[bool]], stop: bool) -> None:
    """Each list is an aggregate, and True a user record that fails."""
    batch = event(*(aggregate([b"bad" if bad else b"good" for bad in one]) for one in parts))
    calls: list[bytes] = []

    def handle(record: Any) -> None:
        calls.append(record.data)
        if record.data == b"bad":
            raise ValueError

    response = process(batch, handle, on_failure="stop" if stop else "continue")
    failed = [sequence_number(number) for number, one in enumerate(parts) if any(one)]
    flat = [bad for one in parts for bad in one]
    assert [item["itemIdentifier"] for item in response["batchItemFailures"]] == (failed[:1] if stop else failed)
    assert len(calls) == (flat.index(True) + 1 if stop and any(flat) else len(flat))


@given(st.data())
def test_event_with_changed_fields_raises_nothing_but_config_error(data: st.DataObject) -> None:
    batch = event(b"one", aggregate([b"two", b"three"]))
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(paths(batch) or [("Records",)]))
        at: Any = batch
        for step in way:
            at = at[step]
        if data.draw(st.booleans()) and isinstance(at, dict):
            at.pop(last, None)
        else:
            at[last] = data.draw(JSON)
    for call in (records, Failures, lambda one: process(one, lambda record: None)):
        try:
            call(batch)
        except ConfigError as error:
            text = str(error)
            assert len(text) < 400, text


@given(JSON | st.text() | st.binary())
def test_document_of_a_destination_raises_nothing_but_config_error(document: Any) -> None:
    for one in (
        document,
        json.dumps(document) if not isinstance(document, bytes) else document,
        {"KinesisBatchInfo": document},
    ):
        try:
            failed_batch(one)
        except ConfigError:
            continue
        raise AssertionError("a document without the fields was accepted")

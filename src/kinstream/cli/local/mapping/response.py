"""Responses of a function whose mapping has `ReportBatchItemFailures`: finds the first record that failed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class InvalidResponse(Exception):
    """The response is not valid, so that the whole batch has failed. The text names the field."""


def failed_from(response: Any, sequence_numbers: Sequence[str]) -> int | None:
    """Return the index of the record with the lowest sequence number that a response reports as failed.

    AWS treats an empty or null response, and an empty or null list, as success (AWS Lambda Developer Guide, "Configuring partial
    batch response with Kinesis Data Streams and Lambda").

    Args:
        response: The response, after a conversion to JSON.
        sequence_numbers: Sequence numbers of the batch, in their order.

    Returns:
        The index, or None if no record failed.

    Raises:
        InvalidResponse: It is not of the required form, or names a record that is not in the batch.
    """
    if response is None:
        return None
    if not isinstance(response, dict):
        raise InvalidResponse(f"the response must be an object or null, not {_kind(response)}")
    failures = response.get("batchItemFailures")
    if failures is None:
        return None
    if not isinstance(failures, list):
        raise InvalidResponse(f"batchItemFailures: must be a list, not {_kind(failures)}")
    index_of = {number: index for index, number in enumerate(sequence_numbers)}
    failed: list[int] = []
    for place, failure in enumerate(failures):
        if not isinstance(failure, dict) or "itemIdentifier" not in failure:
            raise InvalidResponse(f"batchItemFailures[{place}].itemIdentifier: missing")
        number = failure["itemIdentifier"]
        if not isinstance(number, str) or not number:
            given = "empty" if number == "" else f"must be text, not {_kind(number)}"
            raise InvalidResponse(f"batchItemFailures[{place}].itemIdentifier: {given}")
        if number not in index_of:
            raise InvalidResponse(f"batchItemFailures[{place}].itemIdentifier: not a sequence number of the batch")
        failed.append(index_of[number])
    return min(failed, default=None)


def _kind(value: Any) -> str:
    """Return the type of a JSON value by its name in JSON."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names[type(value)]

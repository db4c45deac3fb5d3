"""Responses of a function with `ReportBatchItemFailures`."""

from __future__ import annotations

from typing import Any

import pytest

from kinstream.cli.local.mapping.response import InvalidResponse, failed_from

NUMBERS = ["100", "200", "1000"]


def reported(*numbers: Any) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": number} for number in numbers]}


@pytest.mark.parametrize(
    "response", [None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}, {"statusCode": 200}], ids=repr
)
def test_empty_response_is_a_success(response: Any) -> None:
    assert failed_from(response, NUMBERS) is None


@pytest.mark.parametrize(
    ("numbers", "index"),
    [(["100"], 0), (["1000"], 2), (["1000", "200"], 1), (["1000", "200", "100", "100"], 0)],
    ids=repr,
)
def test_lowest_reported_record_counts(numbers: list[str], index: int) -> None:
    assert failed_from(reported(*numbers), NUMBERS) == index


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ("ok", "the response must be an object or null, not text"),
        ([], "the response must be an object or null, not a list"),
        (True, "the response must be an object or null, not a boolean"),
        ({"batchItemFailures": "100"}, "batchItemFailures: must be a list, not text"),
        ({"batchItemFailures": ["100"]}, "batchItemFailures[0].itemIdentifier: missing"),
        ({"batchItemFailures": [{"ItemIdentifier": "100"}]}, "batchItemFailures[0].itemIdentifier: missing"),
        (reported(""), "batchItemFailures[0].itemIdentifier: empty"),
        (reported(None), "batchItemFailures[0].itemIdentifier: must be text, not null"),
        (reported("100", 200), "batchItemFailures[1].itemIdentifier: must be text, not a number"),
        (reported("100", "7"), "batchItemFailures[1].itemIdentifier: not a sequence number of the batch"),
    ],
    ids=repr,
)
def test_invalid_response_is_named(response: Any, says: str) -> None:
    with pytest.raises(InvalidResponse) as caught:
        failed_from(response, NUMBERS)
    assert str(caught.value) == says

"""Requests with random members and values, validly signed, over a socket: each gets a response, and none is a 500.

tests/fuzz has more of them, without sockets. These also run on a server on disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.fuzz.nonsense import Nonsense
from tests.fuzz.signing import CBOR, JSON

REQUESTS = 500
"""On each server."""


@pytest.mark.parametrize("cbor", [False, True], ids=["json", "cbor"])
def test_random_requests_get_a_response_without_a_500(
    raw: Any, stream: Callable[..., str], names: Any, cbor: bool
) -> None:
    nonsense = Nonsense(7, [stream(2), next(names)], cbor=cbor)
    statuses: dict[int, int] = {}
    for _ in range(REQUESTS):
        operation, params = nonsense.call()
        body = nonsense.encode(params)
        signed = raw.sign(operation, body, content_type=CBOR if cbor else JSON)
        status, headers, answer = raw.send(signed, body)
        statuses[status] = statuses.get(status, 0) + 1
        assert status in (200, 400), (operation, params, answer)
        if status == 200 and answer and headers["Content-Type"] == JSON:
            nonsense.learn(json.loads(answer))
    assert statuses[200] > REQUESTS / 12
    assert statuses[400] > REQUESTS / 12


def test_long_name_is_checked_in_linear_time(raw: Any) -> None:
    # A pattern with two stars would look at this for hours.
    body = json.dumps({"StreamARN": "arn:aws" + ":kinesis:" * 500_000}).encode()
    status, code, text = raw.refusal(raw.sign("DescribeStream", body), body)
    assert (status, code) == (400, "ValidationException")
    assert len(text) < 5000

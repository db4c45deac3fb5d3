"""The endpoint decides the rate limit of writes, unless an option does."""

from __future__ import annotations

import argparse

import pytest

from kinstream.cli.records.pace import rate_limits
from kinstream.config import RateLimits

AWS, LOCAL = "https://kinesis.eu-west-1.amazonaws.com", "http://127.0.0.1:4567"


@pytest.mark.parametrize(
    ("option", "variable", "limited", "expected"),
    [
        (None, None, None, RateLimits()),
        (None, LOCAL, None, None),
        (LOCAL, None, None, None),
        ("http://localhost:4567", AWS, None, None),
        ("http://[::1]:4567", None, None, None),
        (AWS, LOCAL, None, RateLimits()),
        (None, "https://kinesis.local:4567", None, RateLimits()),
        (LOCAL, None, True, RateLimits()),
        (AWS, None, False, None),
    ],
    ids=range(9),
)
async def test_endpoint_on_this_machine_has_no_rate_limit(
    option: str | None, variable: str | None, limited: bool | None, expected: RateLimits | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if variable is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", variable)
    assert await rate_limits(argparse.Namespace(endpoint_url=option, profile=None), limited) == expected

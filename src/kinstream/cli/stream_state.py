"""State of a stream: its description, and the time until it is ACTIVE or deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream
from kinstream.errors import NotFound, UnexpectedResponse

FIRST_DELAY, GROWTH, LONGEST_DELAY = 0.1, 1.5, 2.0
"""Seconds between two descriptions, and their growth. The quota is 20 requests a second for each account (API reference,
`DescribeStreamSummary`)."""
VISIBLE_AFTER = 30.0
"""Seconds for which a new stream may not be found yet."""


async def summary_of(client: Client, stream: Stream) -> Mapping[str, Any]:
    """Return the description of a stream (API reference, `StreamDescriptionSummary`).

    Raises:
        NotFound: The stream does not exist.
        KinesisError: It cannot be described.
    """
    response = await client.call("DescribeStreamSummary", stream.parameter)
    summary = response.get("StreamDescriptionSummary")
    if not isinstance(summary, dict) or not isinstance(summary.get("StreamStatus"), str):
        raise UnexpectedResponse("DescribeStreamSummary: unexpected response: it has no StreamStatus")
    return summary


async def until_active(
    client: Client, stream: Stream, seen: Callable[[Mapping[str, Any]], object] = lambda _: None
) -> Mapping[str, Any]:
    """Wait until a stream is ACTIVE, and return its description.

    Args:
        client: Client for the requests.
        stream: The stream, which was just created or changed.
        seen: Receives each description before that.

    Raises:
        KinesisError: The stream cannot be described.
    """
    clock = client.clock
    began, delay = clock.monotonic(), FIRST_DELAY
    while True:
        try:
            summary = await summary_of(client, stream)
        except NotFound:
            if clock.monotonic() - began > VISIBLE_AFTER:
                raise
        else:
            if summary["StreamStatus"] == "ACTIVE":
                return summary
            seen(summary)
        await clock.sleep(delay)
        delay = min(delay * GROWTH, LONGEST_DELAY)


async def until_deleted(client: Client, stream: Stream) -> None:
    """Wait until a stream does not exist any more.

    Raises:
        KinesisError: The stream cannot be described.
    """
    delay = FIRST_DELAY
    while True:
        try:
            await summary_of(client, stream)
        except NotFound:
            return
        await client.clock.sleep(delay)
        delay = min(delay * GROWTH, LONGEST_DELAY)

"""AWS services that a client can call: their names, endpoints, default retries and advice in error texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kinstream.config import RetryPolicy
from kinstream.errors import STREAM_ADVICE, TABLE_ADVICE


@dataclass(frozen=True, slots=True)
class Service:
    """An AWS service with a JSON-RPC protocol.

    Attributes:
        name: Name in signatures, in host names and in the `services` section of a profile.
        title: Name in error texts.
        target: Prefix of `X-Amz-Target` (service model, `targetPrefix`).
        retry: Default retries.
        advice: Remedy for each error code, appended to error texts.
        checksummed: True if responses have the CRC32 of their body in `x-amz-crc32`.
    """

    name: str
    title: str
    target: str
    retry: RetryPolicy
    advice: Mapping[str, str]
    checksummed: bool = False

    @property
    def endpoint_variable(self) -> str:
        """Environment variable of the endpoint (SDKs guide, "Service-specific endpoints")."""
        return f"AWS_ENDPOINT_URL_{self.name.upper()}"


KINESIS = Service("kinesis", "Kinesis", "Kinesis_20131202", RetryPolicy(), STREAM_ADVICE)

DYNAMODB = Service(
    "dynamodb",
    "DynamoDB",
    "DynamoDB_20120810",
    RetryPolicy(max_attempts=4, initial_delay=0.025),
    TABLE_ADVICE,
    checksummed=True,
)
"""DynamoDB, with the retries of the SDKs (SDKs guide, "Retry behavior": DynamoDB has 4 attempts and 25 ms)."""

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
        name: Name in signatures and in host names.
        title: Name in error texts.
        target: Prefix of `X-Amz-Target` (service model, `targetPrefix`).
        retry: Default retries.
        advice: Remedy for each error code, appended to error texts.
        checksummed: True if responses have the CRC32 of their body in `x-amz-crc32`.
        configured: Name in `AWS_ENDPOINT_URL_...` and in the `services` section of a profile. "": the same as `name`.
    """

    name: str
    title: str
    target: str
    retry: RetryPolicy
    advice: Mapping[str, str]
    checksummed: bool = False
    configured: str = ""

    @property
    def section(self) -> str:
        """Name in the `services` section of a profile (SDKs guide, "Service-specific endpoints")."""
        return self.configured or self.name

    @property
    def endpoint_variable(self) -> str:
        """Environment variable of the endpoint (SDKs guide, "Service-specific endpoints")."""
        return f"AWS_ENDPOINT_URL_{self.section.upper()}"


METRICS_ADVICE = "grant the caller this action on all resources"
"""Remedy for a denied request: metrics are not resources of IAM (service authorization reference, CloudWatch)."""

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

CLOUDWATCH = Service(
    "monitoring",
    "CloudWatch",
    "GraniteServiceVersion20100801",
    RetryPolicy(),
    {"AccessDenied": METRICS_ADVICE, "AccessDeniedException": METRICS_ADVICE},
    configured="cloudwatch",
)
"""CloudWatch, by its protocol `json` (service model, `protocols` and `targetPrefix`)."""

"""Measurement of the endpoint: some light requests, which show whether it responds, and how fast."""

from __future__ import annotations

from kinstream.aws.client import Client
from kinstream.aws.credentials import Setting
from kinstream.aws.endpoint import Stream, aws_endpoint
from kinstream.cli.doctor.finding import denied
from kinstream.cli.doctor.judge.endpoint import Reached
from kinstream.cli.doctor.ledger import Ledger
from kinstream.errors import AccessDenied, ServiceError, ServiceUnavailable

PROBES = 4
"""Requests for the latency. The quota of ListStreams is 5 a second for an account (API reference, `ListStreams`)."""


def endpoint_of(endpoint_url: str | None, setting: Setting, region: str, stream: Stream | None) -> str:
    """Return the URL of the endpoint that a client uses.

    Args:
        endpoint_url: Value of `--endpoint-url`.
        setting: AWS configuration.
        region: The region.
        stream: The stream. That of an ARN has an endpoint of its account.
    """
    account = None if stream is None else stream.account
    return (
        endpoint_url
        or setting.endpoint_url
        or aws_endpoint(region, account=account, fips=setting.fips, dual_stack=setting.dual_stack)
    )


async def reach(client: Client, ledger: Ledger, stream: Stream | None, url: str) -> Reached:
    """Send light requests: ListStreams without a stream, otherwise ListShards for one shard.

    A missing stream or permission is a response, too. Other checks report them.

    Raises:
        KinesisError: No response of Kinesis arrived, or the credentials or the signature were rejected.
    """
    before = len(ledger.latencies)
    for _ in range(PROBES):
        try:
            if stream is None:
                await ledger.watch("kinesis:ListStreams", client.call("ListStreams", {"Limit": 1}))
            else:
                request = client.call("ListShards", {**stream.parameter, "MaxResults": 1})
                await ledger.watch("kinesis:ListShards", request)
        except ServiceError as error:
            if isinstance(error, ServiceUnavailable) or (isinstance(error, AccessDenied) and not denied(error)):
                raise
            if not error.code:  # not a response of Kinesis
                raise
    return Reached(url, tuple(ledger.latencies[before:]))

"""Client of Kinesis for a command, by the options that select the region, the profile and the endpoint."""

from __future__ import annotations

import argparse

from kinstream.aws.client import Client
from kinstream.aws.endpoint import Stream


def connect(args: argparse.Namespace, stream: Stream | None = None) -> Client:
    """Return a client of Kinesis, to be closed after use.

    Args:
        args: Arguments of the command: those of `add_aws`.
        stream: The stream that it is used for. The region of its ARN is the default.

    Raises:
        ConfigError: An option is invalid, or the ARN belongs to another region.
    """
    region = args.region
    if region is None and stream is not None:
        region = stream.region
    client = Client(region=region, profile=args.profile, endpoint_url=args.endpoint_url)
    if stream is not None:
        client.check_region_of(stream.region)
    return client

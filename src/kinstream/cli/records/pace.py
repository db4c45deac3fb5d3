"""Rate limit of the commands that write: the quota of a shard, but none to a server on this machine (decision 21)."""

from __future__ import annotations

import argparse
from urllib.parse import urlsplit

from kinstream.aws.credentials import AwsChain
from kinstream.aws.endpoint import is_loopback
from kinstream.config import RateLimits


async def rate_limits(args: argparse.Namespace, limited: bool | None) -> RateLimits | None:
    """Return the rate limit of a shard. None: records are sent as fast as possible, and retried if the shard throttles.

    Args:
        args: Arguments of the command: those of `add_aws`.
        limited: True for the limit, False for none. None: the endpoint decides.

    Raises:
        ConfigError: The AWS configuration cannot be read, or names a profile that does not exist.
    """
    if limited is None:
        url = args.endpoint_url or (await AwsChain(args.profile).setting()).endpoint_url
        limited = url is None or not is_loopback(urlsplit(url).hostname or "")
    return RateLimits() if limited else None

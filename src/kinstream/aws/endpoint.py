"""Streams and endpoints: which host a request goes to, by AWS's rules.

Source: the endpoint rule set of the Kinesis service model (botocore's
`data/kinesis/2013-12-02/endpoint-rule-set-1.json`), which the conformance tests compare this file with.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from kinstream.errors import ConfigError
from kinstream.service_quotas import STREAM_ARN_PATTERN, STREAM_NAME_PATTERN

DATA_OPERATIONS = frozenset({
    "AcknowledgeDeadLetterQueueRecords", "AcknowledgeQueueRecords", "GetRecords", "GetShardIterator", "PutRecord",
    "PutRecords", "ReceiveDeadLetterQueueRecords", "ReceiveQueueRecords", "RestoreDeadLetterQueueRecords",
    "SubscribeToShard", "UpdateDeadLetterQueueRecordsVisibility", "UpdateQueueRecordsVisibility",
})  # fmt: skip
"""Operations of the data plane; all others are control (the model's `OperationType`)."""

QUEUE = "Queue"
"""In the name of each operation on queues, which have a host of their own (the model's `ResourceType`)."""

LONGEST_SHOWN = 32
"""Characters of a wrong region or stream that an error quotes; a secret access key has 40."""

_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ARN = re.compile(STREAM_ARN_PATTERN, re.ASCII)  # the account becomes a part of a host name
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*")
_NAME = re.compile(STREAM_NAME_PATTERN)

# DNS suffix: plain, dual-stack (None: there is none), by the region's prefix; the first that fits.
_PARTITIONS: tuple[tuple[str, str, str | None], ...] = (
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("", "amazonaws.com", "api.aws"),
)
_NO_ACCOUNT_ENDPOINTS = ("us-iso-", "us-isob-")


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream as requests name it.

    Attributes:
        name: Its name.
        arn: Its ARN, where it was given so.
        region: The ARN's region.
        account: The ARN's account.
    """

    name: str
    arn: str | None = None
    region: str | None = None
    account: str | None = None

    @classmethod
    def parse(cls, stream: str) -> Stream:
        """Return the stream for a name or an ARN.

        Raises:
            ConfigError: It is neither.
        """
        if isinstance(stream, str):
            stream = str.__str__(stream)  # of a subclass, such as an enumeration's member
            if _NAME.fullmatch(stream):
                return cls(stream)
            if arn := _ARN.fullmatch(stream):
                return cls(name=arn[4], arn=stream, region=arn[2], account=arn[3])
        raise ConfigError(
            f"stream={_shown(stream)}: must be a stream's name (1 to 128 of a-z, A-Z, 0-9, '_', '.', '-') "
            "or its ARN (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME)"
        )

    @property
    def parameter(self) -> dict[str, str]:
        """The parameter that names the stream in a request."""
        return {"StreamName": self.name} if self.arn is None else {"StreamARN": self.arn}


def _shown(value: object) -> str:
    """Return a wrong value for an error, unless it is long enough for a secret that was given in the wrong place."""
    if isinstance(value, str) and len(value) > LONGEST_SHOWN and not value.startswith("arn:"):
        return f"<text of {len(value)} characters>"
    return repr(value)


def check_region(region: str) -> str:
    """Return `region`, checked to be fit for a host name.

    Raises:
        ConfigError: It is not.
    """
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        raise ConfigError(
            f"region={_shown(region)}: must be a region's code such as 'eu-central-1' (1 to 63 of a-z, 0-9, '-')"
        )
    return region


def aws_endpoint(
    region: str,
    *,
    operation: str = "",
    account: str | None = None,
    fips: bool = False,
    dual_stack: bool = False,
) -> str:
    """Return the URL of Kinesis in a region.

    Args:
        region: Such as "eu-central-1".
        operation: Chooses the data or the control plane where an account is given, and the host of queues.
        account: The account of the stream's ARN: it has endpoints of its own.
        fips: FIPS 140 endpoints.
        dual_stack: Endpoints with IPv6.

    Raises:
        ConfigError: The region has no such endpoint.
    """
    suffix, dual_suffix = next((plain, dual) for prefix, plain, dual in _PARTITIONS if region.startswith(prefix))
    if dual_stack:
        if dual_suffix is None:
            raise ConfigError(f"region={region!r} has no dual-stack endpoint")
        suffix = dual_suffix
    if QUEUE in operation:
        service = "kinesis-queues"
    elif account is not None and not region.startswith(_NO_ACCOUNT_ENDPOINTS):
        service = f"{account}.{'data' if operation in DATA_OPERATIONS else 'control'}-kinesis"
    else:
        service = "kinesis"
        if region.startswith("us-gov-") and not dual_stack:
            fips = False  # GovCloud's plain name is its FIPS endpoint
    return f"https://{service}{'-fips' if fips else ''}.{region}.{suffix}"


def check_endpoint_url(field: str, url: str, *, allow_http: bool) -> str:
    """Return `url` without a trailing slash, checked to be a place that requests may go to.

    Raises:
        ConfigError: It is no URL of a host, has credentials, a path or a query in it, or is plain http to another
            machine.
    """
    given = url if isinstance(url, str) else ""
    try:
        parts = urlsplit(given)
        _ = parts.port
    except ValueError:
        shown = "" if "@" in given else f"={url!r}"  # it may hold a password
        raise ConfigError(f"{field}{shown}: must be a URL such as https://host:port") from None
    if "@" in parts.netloc:
        raise ConfigError(f"{field}: must not hold a user name or a password")
    # Compared as a whole: urlsplit drops line ends, tabs, and the "?" or "#" before an empty query or fragment.
    bare = f"{parts.scheme}://{parts.netloc}".lower()
    if (
        parts.scheme not in ("http", "https")
        or not _HOST.fullmatch(parts.hostname or "")
        or url.lower() not in (bare, f"{bare}/")
    ):
        raise ConfigError(f"{field}={url!r}: must be https://HOST[:PORT] or http://HOST[:PORT], with no path or query")
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"{field}={url!r}: plain http is only for this machine; use https, or permit it with "
            "ConnectionOptions(allow_http=True) or KINSTREAM_ALLOW_HTTP=1"
        )
    return url.removesuffix("/")


def host_header(url: str) -> str:
    """Return the Host header for a URL: its port only where that is not the scheme's own."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}[parts.scheme]
    return host if parts.port in (None, default) else f"{host}:{parts.port}"


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

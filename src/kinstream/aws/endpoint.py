"""Stream names and endpoints: the host that a request is sent to, by AWS's endpoint rules.

Source: the endpoint rule sets of the service models (botocore's `data/kinesis/2013-12-02/endpoint-rule-set-1.json` and
`data/dynamodb/2012-08-10/endpoint-rule-set-1.json`), which the conformance tests compare with this file.
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
"""Operations of the data plane. All others belong to the control plane (service model, `OperationType`)."""

QUEUE = "Queue"
"""Part of the name of each operation on queues, which have their own host (service model, `ResourceType`)."""

LONGEST_SHOWN = 32
"""Maximum characters of an invalid region or stream that an error quotes. A secret access key has 40."""

_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ARN = re.compile(STREAM_ARN_PATTERN, re.ASCII)  # the account becomes a part of a host name
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*")
_NAME = re.compile(STREAM_NAME_PATTERN)

# Prefix of a region, DNS suffix, dual-stack DNS suffix. The first match counts.
_PARTITIONS: tuple[tuple[str, str, str], ...] = (
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
    """Identification of a stream in requests, by name or by ARN.

    Attributes:
        name: Stream name.
        arn: Stream ARN, if the stream was given by ARN.
        region: Region in the ARN.
        account: Account in the ARN.
    """

    name: str
    arn: str | None = None
    region: str | None = None
    account: str | None = None

    @classmethod
    def parse(cls, stream: str) -> Stream:
        """Return the stream for a name or an ARN.

        Raises:
            ConfigError: The value is neither.
        """
        if isinstance(stream, str):
            stream = str.__str__(stream)  # of a subclass, such as an enumeration's member
            if _NAME.fullmatch(stream):
                return cls(stream)
            if arn := _ARN.fullmatch(stream):
                return cls(name=arn[4], arn=stream, region=arn[2], account=arn[3])
        raise ConfigError(
            f"stream={_shown(stream)}: must be a stream name (1 to 128 of a-z, A-Z, 0-9, '_', '.', '-') "
            "or a stream ARN (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME)"
        )

    @property
    def parameter(self) -> dict[str, str]:
        """Request parameter that identifies the stream."""
        return {"StreamName": self.name} if self.arn is None else {"StreamARN": self.arn}


def _shown(value: object) -> str:
    """Return an invalid value for an error text, unless it is long enough to be a misplaced secret."""
    if isinstance(value, str) and len(value) > LONGEST_SHOWN and not value.startswith("arn:"):
        return f"<text of {len(value)} characters>"
    return repr(value)


def check_region(region: str) -> str:
    """Return `region`, checked to be valid in a host name.

    Raises:
        ConfigError: It is not valid.
    """
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        raise ConfigError(
            f"region={_shown(region)}: must be a region code such as 'eu-central-1' (1 to 63 of a-z, 0-9, '-')"
        )
    return region


def aws_endpoint(
    region: str,
    *,
    service: str = "kinesis",
    operation: str = "",
    account: str | None = None,
    fips: bool = False,
    dual_stack: bool = False,
) -> str:
    """Return the URL of a service in a region.

    Args:
        region: Region such as "eu-central-1".
        service: "kinesis" or "dynamodb". For DynamoDB the region's endpoint is used, never that of an account.
        operation: Operation, which selects the data plane, the control plane or the host of queues.
        account: Account of the stream's ARN, which has its own endpoints. None: the region's endpoint.
        fips: Whether to use a FIPS 140 endpoint.
        dual_stack: Whether to use a dual-stack endpoint (IPv4 and IPv6).
    """
    suffix, dual_suffix = next((plain, dual) for prefix, plain, dual in _PARTITIONS if region.startswith(prefix))
    if dual_stack:
        suffix = dual_suffix
    if QUEUE in operation:
        host = "kinesis-queues"
    elif account is not None and not region.startswith(_NO_ACCOUNT_ENDPOINTS):
        host = f"{account}.{'data' if operation in DATA_OPERATIONS else 'control'}-kinesis"
    else:
        host = service
        if region.startswith("us-gov-") and not dual_stack:
            fips = False  # GovCloud's plain name is its FIPS endpoint
    return f"https://{host}{'-fips' if fips else ''}.{region}.{suffix}"


def check_endpoint_url(field: str, url: str, *, allow_http: bool) -> str:
    """Return `url` without a trailing slash, checked to be a valid and permitted endpoint.

    Raises:
        ConfigError: It is not the URL of a host, contains credentials, a path or a query, or is plain http to another
            machine.
    """
    given = url if isinstance(url, str) else ""
    try:
        parts = urlsplit(given)
        _ = parts.port
    except ValueError:
        shown = "" if "@" in given else f"={url!r}"  # the URL may contain a password
        raise ConfigError(f"{field}{shown}: must be a URL such as https://host:port") from None
    if "@" in parts.netloc:
        raise ConfigError(f"{field}: must not contain a user name or a password")
    # Compared as a whole: urlsplit drops line ends, tabs, and the "?" or "#" before an empty query or fragment.
    bare = f"{parts.scheme}://{parts.netloc}".lower()
    if (
        parts.scheme not in ("http", "https")
        or not _HOST.fullmatch(parts.hostname or "")
        or url.lower() not in (bare, f"{bare}/")
    ):
        raise ConfigError(f"{field}={url!r}: must be https://HOST[:PORT] or http://HOST[:PORT], without path or query")
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"{field}={url!r}: plain http is allowed only to this machine. Use https, or allow it with "
            "ConnectionOptions(allow_http=True) or KINSTREAM_ALLOW_HTTP=1"
        )
    return url.removesuffix("/")


def host_header(url: str) -> str:
    """Return the Host header for a URL, with the port only if it is not the scheme's default."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}[parts.scheme]
    return host if parts.port in (None, default) else f"{host}:{parts.port}"


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

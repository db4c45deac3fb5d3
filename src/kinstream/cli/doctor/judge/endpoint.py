"""Findings about the endpoint and the clock: TLS, latency, and the difference to the time of the service. Pure."""

from __future__ import annotations

import statistics
from urllib.parse import urlsplit

import msgspec

from kinstream.aws.endpoint import is_loopback
from kinstream.aws.service_clock import CLOCKS_DIFFER, SKEW_TOLERANCE
from kinstream.cli.doctor.finding import Check, Finding, Severity
from kinstream.cli.time_span import time_span

FAR, SLOW = 0.15, 1.0
"""Median seconds until a response from which an endpoint is far away, or slow. Within a region it takes a few milliseconds."""
CLOCK_WARNING = 60.0
"""Seconds of clock skew from which the lag and the times of records are misleading."""
_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".amazonaws.eu")


class Reached(msgspec.Struct, frozen=True):
    """An endpoint that responds.

    Attributes:
        url: Its URL.
        latencies: Seconds until each response, of which the first includes the connection.
    """

    url: str
    latencies: tuple[float, ...]


def is_of_aws(url: str) -> bool:
    """Return True if an endpoint is one of AWS, which has CloudWatch, and not a local server."""
    return (urlsplit(url).hostname or "").endswith(_AWS)


def judge_endpoint(reached: Reached) -> list[Finding]:
    """Return the findings about an endpoint that responds."""
    host = urlsplit(reached.url).hostname or ""
    encrypted = reached.url.startswith("https:")
    first, *later = reached.latencies
    median = statistics.median(later or [first])
    security = "TLS with a verified certificate" if encrypted else "without TLS"
    if not encrypted and is_loopback(host):
        security += ", on this machine"
    found = (
        f"{reached.url} responds, {security}: {_milliseconds(median)} for a request,"
        f" {_milliseconds(first)} for the first one with its connection"
    )
    details = {"url": reached.url, "tls": encrypted, "firstSeconds": round(first, 4), "medianSeconds": round(median, 4)}
    severity = Severity.OK
    todo: str | None = None
    if median >= SLOW:
        severity, todo = (
            Severity.WARNING,
            "Check the network, the proxy and the region: a shard is read request by request",
        )
    elif median >= FAR:
        severity, todo = Severity.NOTE, "Run consumers in the region of the stream: a shard is read request by request"
    findings = [Finding(Check.ENDPOINT, severity, found, todo, details)]
    if not encrypted and not is_loopback(host):
        text = "records and signatures can be read in transit, because the endpoint has no TLS"
        findings.append(Finding(Check.ENDPOINT, Severity.WARNING, text, "Use an endpoint with https://"))
    return findings


def judge_unreachable(url: str, problem: str) -> Finding:
    """Return the finding that an endpoint does not respond.

    Args:
        url: Its URL.
        problem: Text of the error.
    """
    return Finding(
        Check.ENDPOINT,
        Severity.PROBLEM,
        f"{url} does not respond as Kinesis does: {problem}",
        "Check --endpoint-url, the region, AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_KINESIS, DNS, the proxy and the firewall",
        {"url": url},
    )


def judge_clock(ahead: float) -> Finding:
    """Return the finding about this machine's clock.

    Args:
        ahead: Seconds by which the service's clock is ahead of this machine's. Differences of up to 2 seconds are 0.
    """
    details = {"serviceAheadSeconds": round(ahead, 1)}
    if abs(ahead) < CLOCKS_DIFFER:
        text = f"this machine's clock agrees with that of the service within {CLOCKS_DIFFER:g} s"
        return Finding(Check.CLOCK, Severity.OK, text, None, details)
    found = (
        f"this machine's clock is {time_span(abs(ahead))} {'behind' if ahead > 0 else 'ahead of'} that of the service"
    )
    todo = "Synchronize the clock by NTP (chrony, timesyncd, w32tm)"
    if abs(ahead) >= SKEW_TOLERANCE:
        found += ". The service refuses signatures that are 5 min off, so each process repeats its first request"
        return Finding(Check.CLOCK, Severity.PROBLEM, found, todo, details)
    severity = Severity.WARNING if abs(ahead) >= CLOCK_WARNING else Severity.NOTE
    return Finding(Check.CLOCK, severity, found + ". Times of records and the lag seem wrong by this", todo, details)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"

"""CloudWatch requests: sums and maxima of the metrics of Kinesis. They do no I/O: a `ServiceClient` sends them.

The protocol is `json` (service model of botocore 1.44, which also lists `smithy-rpc-v2-cbor` and `query`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import Any

import msgspec

from kinstream.aws.request import Malformed, Request

CONTENT_TYPE = "application/x-amz-json-1.0"
"""Format of the bodies (service model, `jsonVersion`)."""
NAMESPACE = "AWS/Kinesis"
"""Namespace of the metrics of Kinesis Data Streams (developer guide, "Monitor with Amazon CloudWatch")."""
MAX_QUERIES = 500
"""Maximum queries in a request (API reference, `GetMetricData`)."""
PERIOD = 60
"""A period is a multiple of this number of seconds (API reference, `MetricStat`)."""


class Statistic(StrEnum):
    """Statistic of the values in a period."""

    SUM = "Sum"
    MAXIMUM = "Maximum"


class MetricQuery(msgspec.Struct, frozen=True):
    """A metric of a stream, one of its shards, or one of its consumers.

    Attributes:
        name: Name of the metric, such as "IncomingRecords".
        dimensions: Dimensions with their values, such as (("StreamName", "events"),).
        statistic: Statistic over the whole time span.
    """

    name: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: Statistic = Statistic.SUM


class _Series(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="Id")
    values: list[float] = msgspec.field(default_factory=list, name="Values")


class _Page(msgspec.Struct, frozen=True):
    series: list[_Series] = msgspec.field(name="MetricDataResults")


def get_metric_data(queries: Sequence[MetricQuery], start: float, end: float) -> Request[list[float | None]]:
    """Return the request for the values of metrics over a time span.

    Args:
        queries: The metrics, up to 500 (API reference, `GetMetricData`).
        start: Start of the time span, in seconds since 1970.
        end: Its end.

    Returns:
        The request. Its result has a value for each query, and None if the metric has no data.
    """
    start, end = start // PERIOD * PERIOD, -(-end // PERIOD) * PERIOD
    params: dict[str, Any] = {
        "StartTime": start,
        "EndTime": end,
        "MetricDataQueries": [_query(index, query, int(end - start)) for index, query in enumerate(queries)],
    }
    return Request("GetMetricData", msgspec.json.encode(params), partial(_values, tuple(queries)))


def _query(index: int, query: MetricQuery, period: int) -> dict[str, Any]:
    metric = {
        "Namespace": NAMESPACE,
        "MetricName": query.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in query.dimensions],
    }
    return {"Id": f"m{index}", "MetricStat": {"Metric": metric, "Period": period, "Stat": query.statistic.value}}


def _values(queries: tuple[MetricQuery, ...], body: bytes) -> list[float | None]:
    """Return the values of a response. A metric may have values of several periods.

    Raises:
        ValueError: The body is not valid.
    """
    found: dict[str, list[float]] = {}
    try:
        page = msgspec.json.decode(body, type=_Page)
    except RecursionError:
        raise Malformed("it is nested too deeply") from None
    for series in page.series:
        found.setdefault(series.id, []).extend(series.values)
    values: list[float | None] = []
    for index, query in enumerate(queries):
        series_values = found.get(f"m{index}")
        total = max if query.statistic is Statistic.MAXIMUM else sum
        values.append(float(total(series_values)) if series_values else None)
    return values

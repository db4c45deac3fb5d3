"""Requests of CloudWatch: aligned periods, and a value for each query."""

from __future__ import annotations

import json

import pytest

from kinstream.aws.cloudwatch import MetricQuery, Statistic, get_metric_data

STREAM = (("StreamName", "events"),)
QUERIES = [
    MetricQuery("IncomingRecords", STREAM),
    MetricQuery("Age", STREAM, Statistic.MAXIMUM),
    MetricQuery("No", STREAM),
]


def test_time_span_is_widened_to_whole_minutes_and_is_one_period() -> None:
    params = json.loads(get_metric_data(QUERIES, 1_800_000_030.5, 1_800_000_930.5).body)
    assert (params["StartTime"], params["EndTime"]) == (1_800_000_000, 1_800_000_960)
    assert params["MetricDataQueries"][1] == {
        "Id": "m1",
        "MetricStat": {
            "Metric": {
                "Namespace": "AWS/Kinesis",
                "MetricName": "Age",
                "Dimensions": [{"Name": "StreamName", "Value": "events"}],
            },
            "Period": 960,
            "Stat": "Maximum",
        },
    }


def test_values_of_several_periods_are_combined_and_missing_ones_are_none() -> None:
    body = {
        "MetricDataResults": [
            {"Id": "m1", "Values": [3, 9]},
            {"Id": "m0", "Values": [1, 2]},
            {"Id": "m2", "Values": []},
        ]
    }
    assert get_metric_data(QUERIES, 0, 900).parse(json.dumps(body).encode()) == [3, 9, None]


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"MetricDataResults": [{"Values": [1]}]}'], ids=["empty", "list", "no-id"]
)
def test_other_response_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        get_metric_data(QUERIES, 0, 900).parse(body)

"""Options of the Spark data source: every error has the name, the value and the allowed range."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from kinstream import ConfigError
from kinstream.spark.options import Connection, read_options, write_options

ARN = "arn:aws:kinesis:eu-central-1:123456789012:stream/events"


def test_names_are_read_in_any_case() -> None:
    options = read_options({"streamname": "events", "REGION": "eu-central-1", "endpointurl": "http://127.0.0.1:1"})
    assert options.connection == Connection(stream="events", region="eu-central-1", endpoint_url="http://127.0.0.1:1")
    assert options.connection.client_options == {"region": "eu-central-1", "endpoint_url": "http://127.0.0.1:1"}
    assert (options.start, options.end, options.fails_on_loss) == (None, None, True)
    assert read_options({"streamName": ARN, "failOnDataLoss": "FALSE"}).fails_on_loss is False


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("latest", "now"),
        ("TRIM_HORIZON", "oldest"),
        ("1800000000", 1_800_000_000.0),
        ("1800000000.5", 1_800_000_000.5),
        ("2027-01-15T08:00:00Z", 1_800_000_000.0),
        ("2027-01-15T09:00:00.500+01:00", 1_800_000_000.5),
    ],
)
def test_initial_position_is_a_name_or_a_time(text: str, start: Any) -> None:
    assert read_options({"streamName": "events", "initialPosition": text}).start == start


def test_times_of_a_batch() -> None:
    options = read_options({"streamName": "events", "startingTime": "10", "endingTime": "1970-01-01T00:00:20Z"})
    assert (options.start, options.end) == (10.0, 20.0)
    assert options.for_batch() is options
    with pytest.raises(ConfigError, match="option startingTime: is for batch reads"):
        options.for_stream()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option streamName: is missing"),
        ({"streamName": "a b"}, "option streamName: stream='a b': must be a stream name"),
        ({"stream": "events"}, "option stream: is unknown: the options are streamName, region"),
        ({"initialPosition": "newest"}, "option initialPosition='newest': must be 'latest', 'trim_horizon', seconds"),
        ({"initialPosition": "2027-01-15"}, "option initialPosition='2027-01-15': must be .* with its time zone"),
        ({"startingTime": "-1"}, "option startingTime='-1': must be seconds since 1970"),
        ({"endingTime": "nan"}, "option endingTime='nan': must be seconds since 1970"),
        ({"startingTime": "20", "endingTime": "20"}, "option endingTime='20': must be later than the start, '20'"),
        ({"initialPosition": "20", "endingTime": "5"}, "option endingTime='5': must be later than the start, '20'"),
        ({"initialPosition": "20", "startingTime": "20"}, "initialPosition and startingTime: only one"),
        ({"failOnDataLoss": "yes"}, "option failOnDataLoss='yes': must be 'true' or 'false'"),
        (
            {"maxrecordsperbatch": "100"},
            "option maxRecordsPerBatch: is not supported, because Kinesis counts no records",
        ),
        ({"awsaccesskeyid": "AKIA"}, "option awsAccessKeyId: is not an option, because options are part of the plan"),
    ],
)
def test_invalid_option_is_refused(options: dict[str, str], message: str) -> None:
    named = (
        options if "stream" in {name[:6] for name in options} or not options else {"streamName": "events", **options}
    )
    with pytest.raises(ConfigError, match=message) as raised:
        read_options(named)
    assert "AKIA" not in str(raised.value)


def test_batch_read_does_not_begin_at_its_end_and_a_stream_has_no_end() -> None:
    with pytest.raises(ConfigError, match="initialPosition='latest': a batch read has no later records"):
        read_options({"streamName": "events", "initialPosition": "latest"}).for_batch()
    with pytest.raises(ConfigError, match="option endingTime: is for batch reads"):
        read_options({"streamName": "events", "endingTime": "20"}).for_stream()
    stream = read_options({"streamName": "events", "initialPosition": "latest"})
    assert stream.for_stream() is stream


def test_options_of_spark_are_no_options_of_a_sink() -> None:
    assert write_options({"streamName": "events", "checkpointlocation": "/tmp/x", "path": "y"}) == Connection(
        stream="events"
    )
    with pytest.raises(
        ConfigError, match="option initialPosition: is unknown: the options are streamName, region, endp"
    ):
        write_options({"streamName": "events", "initialPosition": "latest"})


def test_planning_needs_no_spark() -> None:
    code = "import sys, kinstream.consume.ranges.offsets, kinstream.spark.options; print('pyspark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_missing_spark_is_reported_with_its_extra() -> None:
    import kinstream.spark

    code = "import sys; sys.modules['pyspark'] = None; from kinstream.spark import KinesisDataSource"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "kinstream.spark needs pyspark, which is not installed: pip install 'kinstream[spark]'" in ended.stderr
    assert set(kinstream.spark.__all__) <= set(dir(kinstream.spark))

"""Options of the data source: their names, types and ranges. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from kinstream.aws.endpoint import Stream
from kinstream.consume.fetch.position import seconds_since_1970
from kinstream.errors import ConfigError

CONNECTION = ("streamName", "region", "endpointUrl")
READ = (*CONNECTION, "initialPosition", "startingTime", "endingTime", "failOnDataLoss")
OF_SPARK = ("checkpointLocation", "path", "queryName")
"""Options of Spark itself that it passes to a sink as well."""

_LIMIT = (
    "is not supported, because Kinesis counts no records: the driver would have to read the data to find the end of a batch."
    " Use a trigger interval instead"
)
_PLAN = (
    "is not an option, because options are part of the plan: each executor finds credentials by the default AWS chain"
)
_REFUSED = {
    "maxRecordsPerBatch": _LIMIT,
    "accessKeyId": _PLAN,
    "awsAccessKeyId": _PLAN,
    "awsSecretAccessKey": _PLAN,
    "awsSecretKey": _PLAN,
    "credentials": _PLAN,
    "secretAccessKey": _PLAN,
    "sessionToken": _PLAN,
}
_TIME = "seconds since 1970, or a time in ISO 8601 with its time zone such as '2026-11-30T12:00:00Z'"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The stream and its endpoint, for the driver and the executors. It has no credentials.

    Attributes:
        stream: The stream's name or ARN.
        region: Its region. None: from the ARN or the AWS configuration.
        endpoint_url: URL of the endpoint. None: from the AWS configuration.
    """

    stream: str
    region: str | None = None
    endpoint_url: str | None = None

    @property
    def client_options(self) -> dict[str, Any]:
        """Options of a `Client`."""
        return {"region": self.region, "endpoint_url": self.endpoint_url}


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options of a read.

    Attributes:
        connection: The stream and its endpoint.
        start: "oldest", "now", or seconds since 1970. None: the default of the kind of read.
        end: Seconds since 1970. None: the records at the time of planning.
        fails_on_loss: True if records that expired before they were read are an error.
        given: Names of the options that set `start` and `end`.
    """

    connection: Connection
    start: float | Literal["oldest", "now"] | None = None
    end: float | None = None
    fails_on_loss: bool = True
    given: tuple[str, ...] = ()

    def for_batch(self) -> ReadOptions:
        """Return these options after checking them for a batch read.

        Raises:
            ConfigError: An option is not suitable.
        """
        if self.start == "now":
            raise ConfigError(
                "option initialPosition='latest': a batch read has no later records; use 'trim_horizon' or a time"
            )
        return self

    def for_stream(self) -> ReadOptions:
        """Return these options after checking them for a streaming read.

        Raises:
            ConfigError: An option is not suitable.
        """
        for name in self.given:
            if name != "initialPosition":
                raise ConfigError(f"option {name}: is for batch reads; a streaming read begins at initialPosition")
        return self


def read_options(options: Mapping[str, str]) -> ReadOptions:
    """Return the options of a read.

    Args:
        options: Text by name. Spark does not distinguish upper and lower case in names.

    Raises:
        ConfigError: An option is unknown or invalid. The message has its name, its value and the allowed range.
    """
    values = _by_name(options, READ)
    initial, starting, ending = (values.get(name) for name in ("initialPosition", "startingTime", "endingTime"))
    if initial is not None and starting is not None:
        raise ConfigError("options initialPosition and startingTime: only one of them may be given")
    start: float | Literal["oldest", "now"] | None = None
    if initial is not None:
        start = _initial(initial)
    elif starting is not None:
        start = _time("startingTime", starting)
    end = None if ending is None else _time("endingTime", ending)
    if end is not None and isinstance(start, float) and end <= start:
        raise ConfigError(f"option endingTime={ending!r}: must be later than the start, {initial or starting!r}")
    return ReadOptions(
        connection=_connection(values),
        start=start,
        end=end,
        fails_on_loss=_flag("failOnDataLoss", values.get("failOnDataLoss", "true")),
        given=tuple(name for name in ("initialPosition", "startingTime", "endingTime") if name in values),
    )


def write_options(options: Mapping[str, str]) -> Connection:
    """Return the options of a write.

    Args:
        options: Text by name. Those of Spark itself are ignored.

    Raises:
        ConfigError: An option is unknown or invalid. The message has its name, its value and the allowed range.
    """
    ignored = {name.lower() for name in OF_SPARK}
    return _connection(
        _by_name({name: text for name, text in options.items() if name.lower() not in ignored}, CONNECTION)
    )


def _by_name(options: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    known = {name.lower(): name for name in (*names, *_REFUSED)}
    values = {}
    for given, text in options.items():
        name = known.get(given.lower(), given)
        if name not in names:
            why = _REFUSED.get(name, f"is unknown: the options are {', '.join(names)}")
            raise ConfigError(f"option {name}: {why}")
        values[name] = text
    return values


def _connection(values: Mapping[str, str]) -> Connection:
    stream = values.get("streamName")
    if stream is None:
        raise ConfigError("option streamName: is missing: the name or the ARN of the stream")
    try:
        Stream.parse(stream)
    except ConfigError as error:
        raise ConfigError(f"option streamName: {error.details}") from None
    return Connection(stream=stream, region=values.get("region"), endpoint_url=values.get("endpointUrl"))


def _initial(text: str) -> float | Literal["oldest", "now"]:
    match text.lower():
        case "latest":
            return "now"
        case "trim_horizon":
            return "oldest"
        case _:
            return _time("initialPosition", text, "'latest', 'trim_horizon', ")


def _time(name: str, text: str, others: str = "") -> float:
    try:
        return seconds_since_1970(name, float(text))
    except ValueError:  # of `float`, or a ConfigError
        pass
    try:
        return seconds_since_1970(name, datetime.fromisoformat(text))
    except ValueError:
        raise ConfigError(f"option {name}={text!r}: must be {others}{_TIME}") from None


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigError(f"option {name}={text!r}: must be 'true' or 'false'")
    return text.lower() == "true"

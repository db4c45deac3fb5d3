"""The command `kinstream local`, which runs a local Kinesis server, and calls a function with the records of its streams."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from kinstream.cli.command import add_command
from kinstream.cli.ending import FAILED, INTERRUPTED, TERMINATED
from kinstream.cli.printable import printable
from kinstream.errors import ConfigError, ResourceInUse
from kinstream.service_quotas import STREAM_NAME_PATTERN

if TYPE_CHECKING:
    from kinstream.cli.local.mapping.event_source_mapping import EventSourceMapping
    from kinstream.local import Server

DEFAULT_PORT = 4567
"""The default port of kinesalite, kinesis-mock and kinesis-local."""

MAX_SHARDS = 20_000
"""Maximum open shards of all streams together (quotas: the default of the largest regions)."""

MAX_BATCH_SIZE = 10_000
MAX_RETRY_ATTEMPTS = 10_000
"""Maxima of an event source mapping (AWS Lambda API reference, `CreateEventSourceMapping`)."""

MAPPING_OPTIONS = (
    "batch_size",
    "starting_position",
    "maximum_retry_attempts",
    "bisect_batch_on_function_error",
    "function_response_types",
    "on_failure",
)
"""Options that need `--invoke`. Each is None if it is not given."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser = add_command(
        subparsers,
        "local",
        summary="run a local Kinesis server",
        description="Run a local Kinesis server until it is interrupted. It accepts any region.",
        examples=(
            "kinstream local --stream orders:2 --stream payments",
            "kinstream local --data-dir ./kinesis --stream orders:2",
            "kinstream local --stream orders --invoke app:handler --maximum-retry-attempts 3 --on-failure ./failed",
        ),
    )
    add = parser.add_argument
    add(
        "--stream",
        action="append",
        default=[],
        type=_stream,
        metavar="NAME:SHARDS",
        help="create a stream, with one shard if :SHARDS is omitted, unless it exists (repeatable)",
    )
    add("--port", type=int, default=DEFAULT_PORT, help="port for plain HTTP, 0 for a free one (default: %(default)s)")
    add("--tls-port", type=int, metavar="PORT", help="additional port for TLS, 0 for a free one (default: no TLS)")
    add("--data-dir", metavar="DIR", help="folder for streams and records (default: in memory, lost at exit)")
    add(
        "--durability",
        default="full",
        metavar="full|process",
        help="failure that stored records survive: full includes a power failure, process only the death of the process, "
        "which is faster (default: %(default)s)",
    )
    add("--no-quotas", action="store_true", help="do not enforce the quotas of shards and operations")
    add(
        "--transition",
        type=float,
        default=0.02,
        metavar="SECONDS",
        help="time for which streams are CREATING, UPDATING or DELETING (default: %(default)s)",
    )
    add("--access-key-id", default="local", metavar="ID", help="access key id for clients (default: %(default)s)")
    add("--secret-access-key", default="local", metavar="SECRET", help="secret for clients (default: %(default)s)")
    add("--region", default="us-east-1", help="region in the printed examples (default: %(default)s)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default: %(default)s)")
    add("--allow-remote", action="store_true", help="permit a --host that other machines can reach")
    add(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="additional name to accept in the Host header (repeatable)",
    )
    _add_mapping(parser)
    parser.set_defaults(run=run)


def _add_mapping(parser: argparse.ArgumentParser) -> None:
    """Add the options of the event source mapping, named as those of `aws lambda create-event-source-mapping`."""
    add = parser.add_argument_group(
        "AWS Lambda",
        "Call a function with the records of the streams of --stream, as an event source mapping of AWS Lambda does.\n"
        "It runs in this process, with environment variables by which clients reach this server.",
    ).add_argument
    add("--invoke", type=_function, metavar="MODULE:HANDLER", help="function to call, such as app.orders:handler")
    add("--batch-size", type=_number(1, MAX_BATCH_SIZE), metavar="N", help="maximum records of an event (default: 100)")
    add(
        "--starting-position",
        choices=["TRIM_HORIZON", "LATEST"],
        help="first record: the oldest, or the next one to be written (default: TRIM_HORIZON)",
    )
    add(
        "--maximum-retry-attempts",
        type=_number(-1, MAX_RETRY_ATTEMPTS),
        metavar="N",
        help="retries of a failed batch until it is discarded, -1 for no limit (default: -1)",
    )
    add(
        "--bisect-batch-on-function-error",
        action="store_true",
        default=None,
        help="split a failed batch, to isolate the record that fails",
    )
    add(
        "--function-response-types",
        choices=["ReportBatchItemFailures"],
        help="the response of the function names the records that failed",
    )
    add("--on-failure", metavar="DIR", help="folder for a JSON document about each discarded batch")


def run(args: argparse.Namespace) -> int:
    """Run the server until SIGINT or SIGTERM. Return the exit status of that signal, or 1 if the server could not start."""
    _check(args)
    from kinstream.local import Server

    stopping = threading.Event()
    status = 0

    def interrupt(*_: object) -> None:
        """Stop after the current invocation of the function. The second time, interrupt it."""
        if stopping.is_set() and args.invoke is not None:
            raise KeyboardInterrupt
        stop(INTERRUPTED)

    def stop(of_signal: int) -> None:
        nonlocal status
        status = status or of_signal
        stopping.set()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, lambda *_: stop(TERMINATED))
    try:
        server = Server(
            host=args.host,
            port=args.port,
            tls_port=args.tls_port,
            data_dir=args.data_dir,
            durability=args.durability,
            access_key_id=args.access_key_id,
            secret_access_key=args.secret_access_key,
            region=args.region,
            transition=args.transition,
            quotas=not args.no_quotas,
            allow_remote=args.allow_remote,
            host_names=args.host_name,
        )
        with server:
            try:
                _run(server, args, stopping)
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server persists its data, which takes no long time
    except ConfigError as error:
        print(f"kinstream local: {printable(_by_option(error.details))}", file=sys.stderr)
        return FAILED
    return status


def _run(server: Server, args: argparse.Namespace, stopping: threading.Event) -> None:
    """Create the streams, and wait or invoke the function until `stopping` is set."""
    from kinstream.cli.local.greeting import greeting

    streams = [(name, _create(server, name, shards)) for name, shards in args.stream]
    if args.invoke is None:
        print(greeting(server, streams, None), flush=True)
        stopping.wait()
        return
    from kinstream import ConnectionOptions, blocking

    with blocking.Client(**server.client_options, connection=ConnectionOptions(allow_http=True)) as client:
        mapping = _mapping(server, client, args)
        print(greeting(server, streams, args.invoke), flush=True)
        mapping.run(stopping)


def _create(server: Server, name: str, shards: int) -> str:
    """Create a stream unless it exists. Returns its description."""
    try:
        server.create_stream(name, shards)
    except ResourceInUse:
        return "exists"
    return f"{shards} shard{'' if shards == 1 else 's'}"


def _mapping(server: Server, client: Any, args: argparse.Namespace) -> EventSourceMapping:
    """Return the event source mapping. Imports the function, with the environment variables of the server."""
    from kinstream.cli.local.mapping.batch import Retries
    from kinstream.cli.local.mapping.event_source_mapping import EventSourceMapping, MappingOptions
    from kinstream.cli.local.mapping.failure_folder import FailureFolder
    from kinstream.cli.local.mapping.function import load
    from kinstream.cli.local.mapping.polled_stream import PolledStream
    from kinstream.clock import SYSTEM_CLOCK

    on_failure = None if args.on_failure is None else FailureFolder(args.on_failure)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
        os.environ.pop(name, None)
    os.environ.update(server.environment)
    function = load(args.invoke, server.region)
    attempts = -1 if args.maximum_retry_attempts is None else args.maximum_retry_attempts
    since = SYSTEM_CLOCK.wall() if args.starting_position == "LATEST" else None
    return EventSourceMapping(
        function,
        [PolledStream(name, client, since) for name, _ in args.stream],
        MappingOptions(
            batch_size=args.batch_size or 100,
            retries=Retries(maximum_retry_attempts=attempts, bisect=bool(args.bisect_batch_on_function_error)),
            reports_failures=args.function_response_types is not None,
            on_failure=on_failure,
        ),
    )


def _check(args: argparse.Namespace) -> None:
    """Exit with status 2 if options contradict each other."""
    names = [name for name, _ in args.stream]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        args.parser.error(f"argument --stream: {twice} is given twice")
    if args.invoke is not None and not names:
        args.parser.error("argument --invoke: needs at least one --stream, whose records it gets")
    given = [name for name in MAPPING_OPTIONS if getattr(args, name) is not None]
    if args.invoke is None and given:
        args.parser.error(f"argument --{given[0].replace('_', '-')}: needs --invoke")


def _stream(text: str) -> tuple[str, int]:
    """Return the name and the number of shards in an option."""
    name, colon, shards = text.partition(":")
    if not re.fullmatch(STREAM_NAME_PATTERN, name):
        raise argparse.ArgumentTypeError(
            f"the name must be 1 to 128 of the characters a-z, A-Z, 0-9, '_', '.' and '-', not {name!r}"
        )
    return name, _number(1, MAX_SHARDS)(shards) if colon else 1


def _function(text: str) -> str:
    module, _, name = text.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        raise argparse.ArgumentTypeError(f"must be MODULE:HANDLER, such as app.orders:handler, not {text!r}")
    return text


def _number(low: int, high: int) -> Any:
    """Return the function that parses a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, not {text!r}")
        return int(text)

    return parse


def _by_option(problem: str) -> str:
    """Return the text of a ConfigError with the options of this command in place of the arguments of `Server`."""
    problem = re.sub(r"^(\w+)(?=[=:])", lambda argument: "--" + argument[1].replace("_", "-"), problem)
    problem = re.sub(r"^--host-names\b", "--host-name", problem)
    return problem.replace("unless allow_remote is set", "unless --allow-remote is given")

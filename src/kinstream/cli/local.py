"""`kinstream local`: run a local Kinesis."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from kinstream.errors import ConfigError

if TYPE_CHECKING:
    from kinstream.local import Server

DEFAULT_PORT = 4567
"""The port that other local servers have made customary."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: What `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "local",
        help="run a local Kinesis",
        description="Run a local Kinesis until it is interrupted. Any region is accepted in signatures.",
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="TCP port; 0 picks a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder in which streams and records are kept (default: memory, gone at the end)"
    )
    parser.add_argument("--access-key-id", default="local", help="the access key that is let in (default: %(default)s)")
    parser.add_argument("--secret-access-key", default="local", help="its secret (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Return the exit status: 0, or 1 where the server could not start."""
    try:
        from kinstream.local import Server
    except ModuleNotFoundError as error:
        print(f"kinstream local: {error.name} is missing: pip install 'kinstream[local]'", file=sys.stderr)
        return 1
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        server = Server(
            port=args.port,
            data=args.data,
            access_key_id=args.access_key_id,
            secret_access_key=args.secret_access_key,
        )
        with server:
            print(_greeting(server), flush=True)
            stopping.wait()
    except ConfigError as error:
        print(f"kinstream local: {error}", file=sys.stderr)
        return 1
    return 0


def _greeting(server: Server) -> str:
    kept = "memory" if server.data is None else str(server.data)
    return f"""\
A local Kinesis is running.

  endpoint           {server.url}
  region             {server.region} (any other will do)
  access key id      {server.access_key_id}
  secret access key  {server.secret_access_key}
  data               {kept}

Python:   boto3.client("kinesis", endpoint_url="{server.url}", region_name="{server.region}", \
aws_access_key_id="{server.access_key_id}", aws_secret_access_key="{server.secret_access_key}")
AWS CLI:  AWS_ACCESS_KEY_ID={server.access_key_id} AWS_SECRET_ACCESS_KEY={server.secret_access_key} \
aws kinesis list-streams --endpoint-url {server.url} --region {server.region}

Press Ctrl+C to stop."""

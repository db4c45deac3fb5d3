"""The command `kinstream local`, which runs a local Kinesis server."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import threading
from ipaddress import ip_address
from shlex import quote
from typing import TYPE_CHECKING, Any

from kinstream.cli.printable import printable
from kinstream.errors import ConfigError

if TYPE_CHECKING:
    from kinstream.local import Server

DEFAULT_PORT = 4567
"""The default port of kinesalite, kinesis-mock and kinesis-local."""


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line.

    Args:
        subparsers: Return value of `argparse.ArgumentParser.add_subparsers`.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "local",
        help="run a local Kinesis server",
        description="Run a local Kinesis server until it is interrupted. It accepts any region.",
    )
    add = parser.add_argument
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
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run the server until SIGINT or SIGTERM. Return the exit status: 0, or 1 if the server could not start."""
    from kinstream.local import Server

    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
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
            print(_greeting(server), flush=True)
            stopping.wait()
    except ConfigError as error:
        print(f"kinstream local: {printable(_by_option(error.details))}", file=sys.stderr)
        return 1
    return 0


def _by_option(problem: str) -> str:
    """Return the text of a ConfigError with the options of this command in place of the arguments of `Server`."""
    problem = re.sub(r"^(\w+)(?=[=:])", lambda argument: "--" + argument[1].replace("_", "-"), problem)
    problem = re.sub(r"^--host-names\b", "--host-name", problem)
    return problem.replace("unless allow_remote is set", "unless --allow-remote is given")


def _greeting(server: Server) -> str:
    """Return the text printed at startup: the settings for clients, and examples to copy."""
    keys = f"AWS_ACCESS_KEY_ID={quote(server.access_key_id)} AWS_SECRET_ACCESS_KEY={quote(server.secret_access_key)}"
    list_streams = f"aws kinesis list-streams --region {quote(server.region)} --endpoint-url"
    boto3 = {
        "region_name": server.region,
        "aws_access_key_id": server.access_key_id,
        "aws_secret_access_key": server.secret_access_key,
    }
    lines = [
        "The local Kinesis server is running.",
        "",
        f"  endpoint           {server.url}",
        f"  region             {server.region} (any region is accepted)",
        f"  access key id      {server.access_key_id}",
        f"  secret access key  {server.secret_access_key}",
        f"  data               {'in memory' if server.data_dir is None else server.data_dir}",
        "",
        f"Python:   {_boto3(endpoint_url=server.url, **boto3)}",
        f"AWS CLI:  {keys} {list_streams} {server.url}",
        f"Control:  curl -H {quote(f'Authorization: Bearer {server.secret_access_key}')} {server.url}/_control/interceptions",
        "",
        "Press Ctrl+C to stop.",
    ]
    if not ip_address(server.host.replace("localhost", "127.0.0.1")).is_loopback:
        lines[1:1] = [f"It listens on {server.host}. Any client that can reach it and has the keys has full access."]
    if server.tls_url:
        ca_file = str(server.ca_file)
        lines[3:3] = [f"  endpoint with TLS  {server.tls_url}", f"  CA file            {ca_file}"]
        lines[-2:-2] = [
            "",
            f"With TLS: {_boto3(endpoint_url=server.tls_url, verify=ca_file, **boto3)}",
            f"          AWS_CA_BUNDLE={quote(ca_file)} {keys} {list_streams} {server.tls_url}",
        ]
    return "\n".join(lines)


def _boto3(**arguments: str) -> str:
    written = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
    return f'boto3.client("kinesis", {", ".join(written)})'

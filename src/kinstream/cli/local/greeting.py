"""The text that `kinstream local` prints at startup: the settings for clients, and examples to copy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_address
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kinstream.local import Server


def greeting(server: Server, streams: Sequence[tuple[str, str]], function: str | None) -> str:
    """Return the text printed at startup: the settings for clients, and examples to copy.

    Args:
        server: The server.
        streams: Names and descriptions of the streams that were selected.
        function: The function that gets their records, if any.
    """
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
        *(f"  stream             {name} ({description})" for name, description in streams),
        *([] if function is None else [f"  function           {function}"]),
        "",
        f"Python:   {_boto3(endpoint_url=server.url, **boto3)}",
        f"AWS CLI:  {keys} {list_streams} {server.url}",
        f"Control:  curl -H {quote(f'Authorization: Bearer {server.secret_access_key}')} {server.url}/_control/interceptions",
        "",
        "For kinstream, every AWS SDK and the AWS CLI in another shell, without arguments:",
        "",
        *(f"export {name}={quote(value)}" for name, value in server.environment.items()),
        "",
        "Press Ctrl+C to stop." if function is None else "Press Ctrl+C to stop, and again to interrupt the function.",
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

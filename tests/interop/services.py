"""The servers of the interop tests: our local Kinesis with its quotas, and moto as DynamoDB in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from tests.contract.servers.processes import running

from kinstream import Credentials
from kinstream.local import Server

REGION = "us-east-1"


@dataclass(frozen=True)
class Services:
    """Running servers and boto3 clients for them.

    Attributes:
        kinesis: Our local Kinesis, with and without TLS.
        dynamodb_url: URL of moto.
        kinesis_client: A boto3 client.
        dynamodb_client: A boto3 client.
        record: File with the writes to DynamoDB, as moto_process.py records them, or None.
    """

    kinesis: Server
    dynamodb_url: str
    kinesis_client: Any
    dynamodb_client: Any
    record: Path | None = None

    @property
    def client_options(self) -> dict[str, Any]:
        """Options of a kinstream client of the local Kinesis."""
        credentials = Credentials(self.kinesis.access_key_id, self.kinesis.secret_access_key)
        return {"region": REGION, "credentials": credentials, "endpoint_url": self.kinesis.url}

    def options(self, *, tls: bool) -> dict[str, str]:
        """Return the options of a worker that name the servers."""
        return {
            "kinesis": str(self.kinesis.tls_url) if tls else self.kinesis.url,
            "ca_file": str(self.kinesis.ca_file),
            "dynamodb": self.dynamodb_url,
            "region": REGION,
            "access_key_id": self.kinesis.access_key_id,
            "secret_access_key": self.kinesis.secret_access_key,
        }


@contextmanager
def running_services(record: Path | None = None) -> Iterator[Services]:
    """Run both servers.

    Args:
        record: File for the writes to DynamoDB, or None.

    Raises:
        NotPossible: moto is not installed or does not start.
    """
    options = () if record is None else ("--record", str(record))
    with running("moto", options=options) as moto, Server(tls_port=0, transition=0) as kinesis:
        keys = {
            "region_name": REGION,
            "aws_access_key_id": kinesis.access_key_id,
            "aws_secret_access_key": kinesis.secret_access_key,
        }
        yield Services(
            kinesis,
            moto.url,
            boto3.client("kinesis", endpoint_url=kinesis.url, **keys),
            boto3.client("dynamodb", endpoint_url=moto.url, **keys),
            record,
        )

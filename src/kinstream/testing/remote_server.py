"""RemoteServer: another endpoint in place of the local server, for the option `--kinesis-url` of the pytest plugin."""

from __future__ import annotations

import os
import re
import threading
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest

from kinstream.blocking.client import Client
from kinstream.clock import SYSTEM_CLOCK
from kinstream.credentials import Credentials
from kinstream.environment import environment
from kinstream.errors import LimitExceeded, NotFound

TIMEOUT = 120.0
"""Maximum seconds until the endpoint permits another stream, and until a stream is ACTIVE."""

POLL_SECONDS = 0.2
"""Seconds between two attempts to create a stream, and between two requests for its status."""

_OF_AWS = re.compile(r"\.(amazonaws\.com(\.cn)?|api\.aws)$")


class RemoteServer:
    """An endpoint that this process does not run: AWS, or another local server.

    An endpoint of AWS gets the region and the credentials of the AWS configuration. Any other one gets those of the variables
    `AWS_REGION` or `AWS_DEFAULT_REGION`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or else us-east-1 and
    "local".

    Args:
        url: URL of the endpoint.

    Attributes:
        client_options: Options of a client, as in `Server.client_options`. Region and credentials are missing for AWS.
        environment: Environment variables, as in `Server.environment`. Those of region and credentials are missing for AWS.
    """

    def __init__(self, url: str) -> None:
        self.url: str = url
        self.client_options: dict[str, Any] = {"endpoint_url": url}
        self.environment: dict[str, str] = {"AWS_ENDPOINT_URL_KINESIS": url}
        if not _OF_AWS.search(urlsplit(url).hostname or ""):
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            key_id = os.environ.get("AWS_ACCESS_KEY_ID") or "local"
            secret = os.environ.get("AWS_SECRET_ACCESS_KEY") or "local"
            self.client_options |= {"region": region, "credentials": Credentials(key_id, secret)}
            self.environment = environment(url, region, key_id, secret)
        self._client = Client(**self.client_options)
        self._created: set[str] = set()

    def __repr__(self) -> str:
        return f"RemoteServer({self.url!r})"

    def create_stream(self, name: str, shards: int = 1) -> str:
        """Create a provisioned stream, and wait until it is ACTIVE. `close` deletes it.

        Args:
            name: Name of the stream.
            shards: Number of shards.

        Returns:
            The name.

        Raises:
            KinesisError: The endpoint refused the stream.
            TimeoutError: The stream was not ACTIVE within two minutes.
        """
        deadline = SYSTEM_CLOCK.monotonic() + TIMEOUT
        while not self._create(name, shards, deadline):
            threading.Event().wait(POLL_SECONDS)
        self._created.add(name)
        while (status := self._status(name)) != "ACTIVE":
            if SYSTEM_CLOCK.monotonic() > deadline:
                raise TimeoutError(f"{self.url}: the stream {name} is still {status} after {TIMEOUT:g} seconds")
            threading.Event().wait(POLL_SECONDS)
        return name

    def delete_stream(self, name: str) -> None:
        """Delete a stream with its consumers, if it exists. It may still be DELETING when this returns.

        Raises:
            KinesisError: The endpoint refused it.
        """
        self._created.discard(name)
        try:
            self._client.call("DeleteStream", {"StreamName": name, "EnforceConsumerDeletion": True})
        except NotFound:
            return

    def close(self) -> None:
        """Delete the streams that were created here and still exist, and close the connections."""
        try:
            for name in sorted(self._created):
                self.delete_stream(name)
        finally:
            self._client.close()

    def next(self, *_: Any, **__: Any) -> NoReturn:
        """Skip the test."""
        self._skip("next")

    def every(self, *_: Any, **__: Any) -> NoReturn:
        """Skip the test."""
        self._skip("every")

    def advance(self, *_: Any) -> NoReturn:
        """Skip the test."""
        self._skip("advance")

    def cancel_interceptions(self) -> None:
        """Do nothing: there are no interceptions."""

    def _skip(self, method: str) -> NoReturn:
        pytest.skip(f"kinesis_server.{method}() needs the plugin's own server, and --kinesis-url={self.url} is given")

    def _create(self, name: str, shards: int, deadline: float) -> bool:
        """Create a stream. Returns False if the endpoint permits none at the moment: AWS has limits on those being created."""
        try:
            self._client.call("CreateStream", {"StreamName": name, "ShardCount": shards})
        except LimitExceeded:
            if SYSTEM_CLOCK.monotonic() > deadline:
                raise
            return False
        return True

    def _status(self, name: str) -> str:
        summary = self._client.call("DescribeStreamSummary", {"StreamName": name})["StreamDescriptionSummary"]
        return str(summary["StreamStatus"])

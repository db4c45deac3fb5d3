"""aiobotocore as a client that blocks, so that the cases that speak through boto3 speak through it too."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.ground import environment
from tests.contract.servers.reach import Endpoint

AGENT = Path(__file__).parent / "aiobotocore_agent.py"


def python() -> str:
    """Return the Python that has aiobotocore, made on first use. Raises NotPossible."""
    return environment("contract-aiobotocore", ["aiobotocore"])


class AiobotocoreProcess:
    """An aiobotocore client of a server, in a process of its own, called as a boto3 client is.

    A call that its botocore, which is older than that of boto3, does not support skips the test.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._boto3 = endpoint.boto3()
        self.exceptions = self._boto3.exceptions
        self.meta = self._boto3.meta
        self._process = subprocess.Popen([python(), AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._send(
            {
                "endpoint_url": endpoint.url,
                "region_name": endpoint.region,
                "aws_access_key_id": endpoint.access_key_id,
                "aws_secret_access_key": endpoint.secret_access_key,
            }
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda **arguments: self._ask("call", name, arguments)

    def get_paginator(self, name: str) -> Paginator:
        return Paginator(self, name)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _ask(self, task: str, name: str, arguments: dict[str, Any]) -> Any:
        self._send((task, name, arguments))
        assert self._process.stdout is not None
        outcome, value = pickle.load(self._process.stdout)
        if outcome == "unknown":
            pytest.skip(value)
        if outcome == "refused":
            response, operation = value
            raise self.exceptions.from_code(response["Error"]["Code"])(response, operation)
        return value

    def _send(self, said: Any) -> None:
        assert self._process.stdin is not None
        pickle.dump(said, self._process.stdin)
        self._process.stdin.flush()


class Paginator:
    """boto3's paginator, by aiobotocore."""

    def __init__(self, client: AiobotocoreProcess, name: str) -> None:
        self._client = client
        self._name = name

    def paginate(self, **arguments: Any) -> Iterator[Any]:
        return iter(self._client._ask("pages", self._name, arguments))

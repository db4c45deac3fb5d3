"""Makes aiobotocore's calls for tests: run by the Python that has it, which is not the tests' own (it pins botocore).

Reads pickled pairs of a task and its arguments from standard input, and writes a pickled pair of outcome and value each.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from typing import Any

from aiobotocore.config import AioConfig  # type: ignore[import-not-found]
from aiobotocore.session import get_session  # type: ignore[import-not-found]
from botocore.exceptions import ClientError, ParamValidationError


async def main() -> None:
    options: dict[str, Any] = pickle.load(sys.stdin.buffer)
    config = AioConfig(retries={"total_max_attempts": 1}, read_timeout=10)
    async with get_session().create_client("kinesis", config=config, **options) as client:
        while True:
            try:
                task, name, arguments = await asyncio.to_thread(pickle.load, sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(await outcome(client, task, name, arguments), sys.stdout.buffer)
            sys.stdout.buffer.flush()


async def outcome(client: Any, task: str, name: str, arguments: dict[str, Any]) -> tuple[str, Any]:
    try:
        if task == "pages":
            return "answer", [page async for page in client.get_paginator(name).paginate(**arguments)]
        if not hasattr(client, name):
            return "unknown", f"aiobotocore knows no {name}"
        return "answer", await getattr(client, name)(**arguments)
    except ClientError as error:
        return "refused", (error.response, error.operation_name)
    except ParamValidationError as error:
        return "unknown", str(error)


asyncio.run(main())

"""The function of the event source mapping: imports it, and calls it as the runtime of AWS Lambda does."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from kinstream.cli.local.mapping.event import ACCOUNT
from kinstream.clock import SYSTEM_CLOCK
from kinstream.errors import ConfigError
from kinstream.functions import function as check_function

TIMEOUT = 900.0
"""Seconds that a function may take (Lambda quotas: the maximum of its timeout). It is not interrupted."""

VERSION = "$LATEST"


class FunctionFailed(Exception):
    """An invocation failed. The text has the reason."""


@dataclass(frozen=True)
class Context:
    """The second argument of a function, with the attributes and the method of the context object of AWS Lambda for Python."""

    function_name: str
    invoked_function_arn: str
    aws_request_id: str
    deadline: float
    function_version: str = VERSION
    memory_limit_in_mb: str = "128"
    log_group_name: str = "/aws/lambda/kinstream-local"
    log_stream_name: str = "kinstream-local"
    identity: None = None
    client_context: None = None

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds left until the time limit."""
        return max(int((self.deadline - SYSTEM_CLOCK.monotonic()) * 1000), 0)


class Function:
    """A function of the application.

    Args:
        handler: The function.
        name: Its name.
        region: Region of its ARN.
    """

    def __init__(self, handler: Callable[[Any, Any], Any], name: str, region: str) -> None:
        self._handler = handler
        self.name: str = name
        self.arn: str = f"arn:aws:lambda:{region}:{ACCOUNT}:function:{name}"

    def invoke(self, event: Mapping[str, Any], request_id: str) -> Any:
        """Call the function. Its event is a copy, so that a change does not affect a retry.

        Args:
            event: The event.
            request_id: ID of the invocation.

        Returns:
            The response, after a conversion to JSON and back.

        Raises:
            FunctionFailed: It raised an exception, called `sys.exit`, or returned a value that JSON does not have. A traceback
                was printed to standard error.
            KeyboardInterrupt: The user interrupted it.
        """
        context = Context(self.name, self.arn, request_id, SYSTEM_CLOCK.monotonic() + TIMEOUT)
        try:
            response = self._handler(json.loads(json.dumps(event)), context)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit too, which ends the process of a function on AWS
            _print_traceback(error)
            raise FunctionFailed(type(error).__name__) from None
        try:
            return json.loads(json.dumps(response))
        except (TypeError, ValueError, RecursionError):
            raise FunctionFailed(
                f"its response of type {type(response).__name__} cannot be converted to JSON"
            ) from None


def load(text: str, region: str) -> Function:
    """Import a function.

    Args:
        text: Its module and its name, such as "app.orders:handler". The current folder is searched first.
        region: Region of its ARN.

    Raises:
        ConfigError: The module cannot be imported, or has no such function. If the module raised an exception, its traceback was
            printed to standard error.
    """
    module_name, _, name = text.partition(":")
    if sys.path[:1] != [""]:
        sys.path.insert(0, "")
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            _print_traceback(error)
            raise ConfigError(
                f"invoke={text}: {module_name} needs the module {error.name}, which does not exist"
            ) from None
        raise ConfigError(
            f"invoke={text}: there is no module {error.name} in {Path.cwd()} or on Python's path"
        ) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit too, as when it is invoked
        _print_traceback(error)
        raise ConfigError(f"invoke={text}: importing {module_name} raised {type(error).__name__}") from None
    handler: Any = module
    for part in name.split("."):
        if not hasattr(handler, part):
            raise ConfigError(f"invoke={text}: the module {module_name} has no {name}")
        handler = getattr(handler, part)
    check_function(f"invoke={text}", handler, "a function of an event and a context")
    return Function(handler, name, region)


def new_request_id() -> str:
    """Return an ID for an invocation."""
    return str(uuid4())


def _print_traceback(error: BaseException) -> None:
    """Print the traceback of an exception, from the first frame of the application on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)


def _is_ours(file: str) -> bool:
    return file == __file__ or "importlib" in file

"""moto as a server process that handles one request at a time: python moto_process.py HOST PORT [--ssl] [--record FILE].

moto's server handles each request in a thread, and its conditional writes are not atomic among threads: of 50 concurrent takes of
one lease it sometimes applied two.

With --record, each write to DynamoDB is appended to a file as a line of JSON: time, operation, client, status, request.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from threading import Lock
from typing import Any, TextIO

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

WRITES = ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems")


class OneAtATime:
    """A WSGI application that is called by one thread at a time, after the body of the request was read.

    Args:
        application: The application.
        record: File for the writes to DynamoDB, in the order in which they were applied, or None.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]], record: TextIO | None = None) -> None:
        self._application = application
        self._record = record
        self._lock = Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        length = environ.get("CONTENT_LENGTH")
        body = environ["wsgi.input"].read(int(length)) if length else b""
        environ["wsgi.input"] = BytesIO(body)
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        with self._lock:
            if self._record is None or operation not in WRITES:
                return list(self._application(environ, start_response))
            statuses: list[str] = []

            def start(status: str, *rest: Any) -> Any:
                statuses.append(status)
                return start_response(status, *rest)

            response = list(self._application(environ, start))
            line = {
                "time": time.time(),
                "operation": operation,
                "client": f"{environ.get('HTTP_USER_AGENT', '').partition(' ')[0]}:{environ.get('REMOTE_PORT')}",
                "status": statuses[-1].partition(" ")[0],
                "request": json.loads(body),
            }
            self._record.write(json.dumps(line) + "\n")
            self._record.flush()
            return response


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--ssl", action="store_true")
    parser.add_argument("--record", type=argparse.FileType("a", encoding="utf-8"))
    given = parser.parse_args()
    run_simple(
        given.host,
        given.port,
        OneAtATime(DomainDispatcherApplication(create_backend_app), given.record),
        threaded=True,
        ssl_context="adhoc" if given.ssl else None,
        request_handler=MotoRequestHandler,
    )

"""moto as a server process that handles one request at a time: python moto_process.py HOST PORT [--ssl].

moto's server handles each request in a thread, and its conditional writes are not atomic among threads: of 50 concurrent takes of
one lease it sometimes applied two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from io import BytesIO
from threading import Lock
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple


class OneAtATime:
    """A WSGI application that is called by one thread at a time, after the body of the request was read.

    Args:
        application: The application.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        length = environ.get("CONTENT_LENGTH")
        if length:
            environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(int(length)))
        with self._lock:
            return list(self._application(environ, start_response))


if __name__ == "__main__":
    run_simple(
        sys.argv[1],
        int(sys.argv[2]),
        OneAtATime(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        ssl_context="adhoc" if "--ssl" in sys.argv else None,
        request_handler=MotoRequestHandler,
    )

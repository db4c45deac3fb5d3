"""Streams of an application: a lease table has the leases of one stream, or those of several, in another format. Pure.

The keys of both formats differ, as in the Kinesis Client Library (KCL, `Lease` and `MultiStreamLease`). A worker of one format
that wrote to a table of the other would create leases that the other workers cannot read.
"""

from __future__ import annotations

import msgspec

from kinstream.consume.fleet.view import View
from kinstream.errors import ConfigError


def check_format(view: View, table: str, *, several: bool) -> None:
    """Check that all leases of an application have the format of this worker. Called before the first write.

    Args:
        view: The rows.
        table: Description of the table, for the error.
        several: True if this worker reads several streams.

    Raises:
        ConfigError: A lease has the other format. The message names the table, the lease, and the remedy.
    """
    foreign = sorted(key for key, observed in view.leases.items() if (observed.lease.stream is not None) is not several)
    if not foreign:
        return
    if several:
        raise ConfigError(
            f"{table}: the lease {foreign[0]!r} is that of an application that reads one stream, and this consumer reads"
            " several, as a list. Nothing was written. Give the stream as text instead of a list, or use another application"
            " name and another table"
        )
    raise ConfigError(
        f"{table}: the lease {foreign[0]!r} is that of an application that reads several streams, and this consumer reads one."
        " Nothing was written. Give the streams as a list, or use another application name and another table"
    )


def check_stream(view: View, table: str, stream: str | None) -> None:
    """Check that the leases of an application are those of this worker's stream. Called before the first write.

    A lease of an application that reads one stream does not name it, and shards of different streams have the same ids. So each
    kinstream worker names its stream in its row. After all workers have ended, their rows stay until the next one leads.

    Args:
        view: The rows.
        table: Description of the table, for the error.
        stream: Name of the stream that this worker reads. None: it reads several, which the leases name.

    Raises:
        ConfigError: A worker reads another stream. The message names both, and the remedy.
    """
    others = sorted(
        {worker.only_stream for worker in view.workers.values() if worker.only_stream is not None} - {stream}
    )
    if stream is not None and others:
        raise ConfigError(
            f"{table}: has the leases of the stream {others[0]!r}, and this consumer reads {stream!r}. Nothing was written. Use"
            " an application name for each stream, or give the streams of one application as a list"
        )


def of_streams(view: View, streams: frozenset[str] | None) -> View:
    """Return the view without the leases of streams that this worker does not read. They are never written.

    Args:
        view: The rows.
        streams: Identifiers of the streams that this worker reads. None: the application reads one stream.
    """
    if streams is None or all(observed.lease.stream in streams for observed in view.leases.values()):
        return view
    leases = {key: observed for key, observed in view.leases.items() if observed.lease.stream in streams}
    return msgspec.structs.replace(view, leases=leases)


def unread(view: View, streams: frozenset[str] | None) -> list[str]:
    """Return a sentence for a status report about the streams that have leases and that this worker does not read, if any.

    Args:
        view: The rows.
        streams: Identifiers of the streams that this worker reads. None: the application reads one stream.
    """
    if streams is None:
        return []
    found = sorted({str(observed.lease.stream) for observed in view.leases.values()} - streams)
    if not found:
        return []
    return [
        f"This worker does not read these streams of the application, and leaves their leases alone: {', '.join(found)}."
    ]

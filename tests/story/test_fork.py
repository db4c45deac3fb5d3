"""Processes that are forked after requests: pre-forking servers and task queues make the objects of a worker in the worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kinstream import Credentials, blocking
from kinstream.local import Server

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

PROGRAM = """
import asyncio, os, sys, threading
from kinstream import Batching, Client, Consumer, Credentials, Producer, Record, blocking, callbacks

place = dict(region="us-east-1", credentials=Credentials("local", "local"), endpoint_url={url!r})
reading = dict(start="TRIM_HORIZON", until="now", **place)

def put():
    with blocking.Producer("events", **place) as producer:
        return producer.put(b"x", "key").result().shard_id

def child(act):
    pid = os.fork()
    if pid == 0:
        try:
            print(act(), flush=True)
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

{code}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(quotas=False, transition=0, tls_port=0) as server:
        credentials = Credentials("local", "local")
        with blocking.Client(region=server.region, credentials=credentials, endpoint_url=server.url) as client:
            client.call("CreateStream", {"StreamName": "events", "ShardCount": 1})
        yield server


def run(server: Server, code: str, scheme: str = "http", *, logs: bool = False) -> list[str]:
    url, trusted = server.url, {}
    if scheme == "https":
        url, trusted = f"https://127.0.0.1:{server.tls_port}", {"AWS_CA_BUNDLE": str(server.ca_file)}
    ended = subprocess.run(
        # Python 3.12 and later warn about each fork of a process with threads.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM.format(url=url, code=code)],
        env=os.environ | trusted, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (ended.returncode, logs or ended.stderr) == (0, logs or "")
    return ended.stdout.splitlines()


OWN_OBJECTS = {
    "blocking": "child(put)",
    "asyncio": """
async def act():
    async with Client(**place) as client:
        return len((await client.call("ListShards", {"StreamName": "events"}))["Shards"])
child(lambda: asyncio.run(act()))
""",
    "asyncio producer": """
async def act():
    async with Producer("events", **place) as producer:
        return (await (await producer.put(b"x", "key"))).shard_id
child(lambda: asyncio.run(act()))
""",
    "callbacks": """
def act():
    told, outcome = threading.Event(), []
    with callbacks.Producer("us-east-1", "local", "local", "events", endpoint_url=place["endpoint_url"]) as producer:
        producer.put(b"x", "key", lambda error, result: (outcome.append(error or result.shard_id), told.set()))
        told.wait(20)
    return outcome[0]
child(act)
""",
    "consumer": """
def act():
    with blocking.Consumer("events", **reading) as consumer:
        return len(list(consumer)) > 0
child(act)
""",
    "asyncio consumer": """
async def act():
    async with Consumer("events", **reading) as consumer:
        return len([record async for record in consumer]) > 0
child(lambda: asyncio.run(act()))
""",
}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("style", OWN_OBJECTS)
def test_forked_process_works_with_objects_of_its_own(server: Server, style: str, scheme: str) -> None:
    printed = run(server, f"print(put(), flush=True)\n{OWN_OBJECTS[style]}\nprint(put())", scheme)
    assert printed[0] == printed[2] == "shardId-000000000000"  # the parent continues
    assert printed[1] in ("shardId-000000000000", "True", "1")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_parent_uses_its_open_connections_after_a_child_wrote(server: Server, scheme: str) -> None:
    code = """
with blocking.Producer("events", **place) as producer:
    producer.put(b"x", "key").result()
    child(put)
    child(put)
    print(producer.put(b"x", "key").result().attempts)
"""
    assert run(server, code, scheme) == ["shardId-000000000000", "shardId-000000000000", "1"]


def test_child_of_a_child_gets_an_error_that_advises_spawn(server: Server) -> None:
    printed = run(server, "put()\nchild(lambda: (put(), child(put))[0])", logs=True)
    assert "spawn" in printed[0]
    assert "forkserver" in printed[0]
    assert printed[1] == "shardId-000000000000"


def test_child_of_a_child_that_sent_nothing_works(server: Server) -> None:
    assert run(server, "put()\nchild(lambda: child(put))") == ["shardId-000000000000", "None"]


def test_fork_before_the_first_request_leaves_both_runtimes(server: Server) -> None:
    assert run(server, "child(lambda: (put(), child(put))[0])\nprint(put())") == ["shardId-000000000000"] * 3


OBJECTS_OF_THE_PARENT = {
    "blocking client": """
client = blocking.Client(**place)
client.call("ListStreams", {})
child(lambda: client.call("ListStreams", {}))
child(client.close)
client.close()
""",
    "blocking producer": """
producer = blocking.Producer("events", **place)
producer.put(b"x", "key").result()
child(lambda: producer.put(b"x", "key"))
child(producer.close)
producer.close()
""",
    "blocking consumer": """
consumer = blocking.Consumer("events", **reading)
list(consumer)
child(consumer.get_shards)
child(consumer.close)
consumer.close()
""",
    "blocking delivery": """
producer = blocking.Producer("events", batch=Batching(linger=60), **place)
delivery = producer.put(b"x", "key")
child(delivery.result)
child(lambda: producer.close())
producer.close()
""",
    "record": """
consumer = blocking.Consumer("events", **reading)
records = iter(consumer)
record = next(records)
child(record.checkpoint)
child(lambda: records.close())
consumer.close()
""",
    "callbacks": """
producer = callbacks.Producer("us-east-1", "local", "local", "events", endpoint_url=place["endpoint_url"])
told = threading.Event()
producer.put(b"x", "key", lambda *_: told.set())
told.wait()
def act():
    told, outcome = threading.Event(), []
    producer.put_record(Record(b"x", "key"), lambda error, result: (outcome.append(error), told.set()))
    told.wait(20)
    return f"{type(outcome[0]).__name__} {outcome[0]}"
child(act)
child(producer.close)
producer.close()
""",
    "asyncio client": """
loop = asyncio.new_event_loop()
client = Client(**place)
loop.run_until_complete(client.call("ListStreams", {}))
child(lambda: asyncio.run(client.call("ListStreams", {})))
child(lambda: asyncio.run(client.close()))
loop.run_until_complete(client.close())
loop.close()
""",
    "asyncio producer": """
loop = asyncio.new_event_loop()
producer = Producer("events", **place)
async def act():
    return await (await producer.put(b"x", "key"))
loop.run_until_complete(act())
child(lambda: asyncio.run(act()))
child(lambda: asyncio.run(producer.close()))
loop.run_until_complete(producer.close())
loop.close()
""",
}


@pytest.mark.parametrize("kind", OBJECTS_OF_THE_PARENT)
def test_objects_of_the_parent_name_the_way_out_and_can_be_closed(server: Server, kind: str) -> None:
    used, closed = run(server, OBJECTS_OF_THE_PARENT[kind])
    assert used.startswith("UsageError")
    assert "spawn" in used
    assert "forkserver" in used
    # An asyncio producer would have to wait for its records in the event loop of the parent.
    assert closed == (used if kind == "asyncio producer" else "None")


# Threads that end.

ENDING = """
import ctypes, logging
libc = ctypes.CDLL(None)
key = ctypes.c_uint()
assert libc.pthread_key_create(ctypes.byref(key), ctypes.cast(libc.sem_wait, ctypes.c_void_p)) == 0
held = ctypes.create_string_buffer(64)  # a semaphore
assert libc.sem_init(held, 0, 0) == 0
threads = set()

def end_slowly(*_):  # once in each thread: the operating system ends it once the semaphore is released
    sys.setprofile(None)
    threads.add(threading.current_thread())
    libc.pthread_setspecific(key, ctypes.c_void_p(ctypes.addressof(held)))

def here():  # asyncio's thread that shuts an executor down runs no code that uses OpenSSL, so no fork waits for it
    ended = [thread for thread in threads if "_do_shutdown" not in thread.name]
    return [thread for thread in ended if os.path.exists(f"/proc/self/task/{thread.native_id}")]

forking_now = threading.Event()

def release():
    forking_now.wait()
    for _ in threads:
        libc.sem_post(held)

threading.Thread(target=release, daemon=True).start()
threading.setprofile(end_slowly)
{use}
threading.setprofile(None)
while any(thread.is_alive() for thread in threads):
    pass
before = here()
forking_now.set()
child = os.fork()
if child == 0:
    os._exit(0)
print(len(threads) > 0, len(before) > 0, len(here()))
os.waitpid(child, 0)
"""

USES = {
    "background loop": """
client = blocking.Client(**place)
client.call("ListStreams", {})
client.close()
""",
    "background loop that was collected": """
blocking.Client(**place).call("ListStreams", {})
""",
    "credentials": """
os.environ.update(AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local")
async def act():
    async with Client(**{k: v for k, v in place.items() if k != "credentials"}) as client:
        await client.call("ListStreams", {})
loop = asyncio.new_event_loop()
loop.run_until_complete(act())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
""",
    "handlers": """
async def act():
    async with Consumer("events", **reading) as consumer:
        await consumer.run(lambda record: None)
asyncio.run(act())
""",
    "local server": """
from kinstream.local import Server
with Server():
    pass
""",
}


@pytest.mark.skipif(sys.platform != "linux", reason="threads are seen in /proc")
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python itself waits until the operating system ended a thread")
@pytest.mark.parametrize("use", USES)
def test_fork_waits_until_the_threads_that_have_ended_are_gone(server: Server, use: str) -> None:
    assert run(server, "put()\n" + ENDING.replace("{use}", USES[use])) == ["True True 0"]


def test_fork_does_not_wait_for_threads_that_run(server: Server) -> None:
    code = """
from kinstream import forking
client = blocking.Client(**place)
client.call("ListStreams", {})
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
print(len(forking._watched) > 0, [thread.name for thread in forking._ended()])
client.close()
"""
    assert run(server, code) == ["True []"]

"""Errors of misuse name the correct code."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from tests.doubles.transport import ScriptedTransport

import kinstream
from kinstream import Batching, Client, Consumer, Credentials, ErrorPolicy, Producer, blocking, callbacks
from kinstream.local import Limits, Server
from kinstream.usage import _checked, _options, forked, has_not, public_name

OPTIONS: dict[str, Any] = {
    "region": "us-east-1",
    "credentials": Credentials("key", "secret"),
    "endpoint_url": "http://127.0.0.1:1",
}
ACCOUNT = ("us-east-1", "key", "secret", "events")


# Unknown options


ARGUMENTS: dict[Any, tuple[str, ...]] = {
    Producer: ("s",),
    Consumer: ("s",),
    blocking.Producer: ("s",),
    blocking.Consumer: ("s",),
    callbacks.Producer: ACCOUNT,
    callbacks.Consumer: ACCOUNT,
    Credentials: ("a", "b"),
}


@pytest.mark.parametrize(
    ("kind", "option", "says"),
    [
        (Client, "regoin", "kinstream.Client: unknown option 'regoin'. Did you mean region=...?"),
        (Client, "region_name", "Did you mean region=...?"),
        (Client, "aws_access_key_id", "Did you mean credentials=Credentials(access_key_id=...)?"),
        (Client, "max_attempts", "max_attempts is an option of RetryPolicy: retry=RetryPolicy(max_attempts=1)"),
        (Client, "wire", "kinstream.Client: unknown option 'wire'. Did you mean wire_format=...?"),
        (Consumer, "store", "kinstream.Consumer: unknown option 'store'. Did you mean lease_store=...?"),
        (Consumer, "topic", "kinstream.Consumer: unknown option 'topic'. The options are stream, "),
        (callbacks.Producer, "retry", "kinstream.callbacks.Producer: unknown option 'retry'. The options are region, "),
        (Client, "zzz", "The options are region, credentials, endpoint_url, "),
        (Producer, "linger", "kinstream.Producer: linger is an option of Batching: batch=Batching(linger=1)"),
        (Producer, "linger_ms", "Did you mean batch=Batching(linger=...)?"),
        (Producer, "regoin", "kinstream.Producer: unknown option 'regoin'. Did you mean region=...?"),
        (Producer, "batching", "Did you mean batch=...?"),
        (
            Producer,
            "max_bytes",
            (
                "max_bytes is an option of Aggregation: aggregate=Aggregation(max_bytes=1), of Batching:"
                " batch=Batching(max_bytes=1), or of BufferLimits: buffer=BufferLimits(max_bytes=1)"
            ),
        ),
        (Consumer, "concurrency", "concurrency is an option of Handling: handling=Handling(concurrency=1)"),
        (Consumer, "consumer_name", "is an option of EnhancedFanOut: fetch=EnhancedFanOut(consumer_name=1)"),
        (
            Consumer,
            "initial_delay",
            "is an option of ErrorPolicy: errors=ErrorPolicy(initial_delay=1), or of RetryPolicy: retry=RetryPolicy(initial_d",
        ),
        (Batching, "lingr", "kinstream.Batching: unknown option 'lingr'. Did you mean linger=...?"),
        (ErrorPolicy, "attempts", "kinstream.ErrorPolicy: unknown option 'attempts'. Did you mean max_attempts=...?"),
        (
            Credentials,
            "sesion_token",
            "kinstream.Credentials: unknown option 'sesion_token'. Did you mean session_token",
        ),
        (blocking.Client, "regoin", "kinstream.blocking.Client: unknown option 'regoin'. Did you mean region=...?"),
        (blocking.Producer, "linger", "kinstream.blocking.Producer: linger is an option of Batching: batch=Batching("),
        (blocking.Consumer, "concurrency", "is an option of Handling: handling=Handling(concurrency=1)"),
        (
            callbacks.Producer,
            "linger",
            "kinstream.callbacks.Producer: linger is an option of Batching: batch=Batching(",
        ),
        (callbacks.Consumer, "concurrency", "is an option of Handling: handling=Handling(concurrency=1)"),
        (Server, "quota", "kinstream.local.Server: unknown option 'quota'. Did you mean quotas=...?"),
        (Limits, "stream", "kinstream.local.Limits: unknown option 'stream'. Did you mean http2_streams=...?"),
    ],
)
def test_error_of_an_unknown_option_names_the_nearest_one_and_its_place(kind: Any, option: str, says: str) -> None:
    with pytest.raises(TypeError) as caught:
        kind(*ARGUMENTS.get(kind, ()), **{option: 1})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "shown"),
    [
        ("linger", 0, "linger=0"),
        ("linger", 0.5, "linger=0.5"),
        ("linger", "0", "linger=..."),
        ("when_full", "raise", 'when_full="raise"'),
        ("when_full", "canary", "when_full=..."),
        ("allow_http", True, "allow_http=True"),
        ("proxy", "http://user:canary@proxy", "proxy=..."),
        ("access_key_id", "canary", "access_key_id=..."),
        ("secret_access_key", "canary", "secret_access_key=..."),
        ("secret_access_key", 12345, "secret_access_key=..."),
        ("aws_secret_access_key", "canary", "secret_access_key=..."),
    ],
)
def test_value_of_a_misplaced_option_is_shown_unless_it_may_be_a_secret(option: str, value: Any, shown: str) -> None:
    with pytest.raises(TypeError) as caught:
        Producer("s", **{option: value})
    assert f"({shown})" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_error_holds_no_secret_in_its_frames() -> None:
    secret = "can" + "ary"
    for options in ({"tokn": 1}, {"session_token": 1}):
        with pytest.raises((TypeError, kinstream.ConfigError)) as caught:
            Credentials(access_key_id="key", secret_access_key=secret, **options)  # type: ignore[arg-type]
        beyond_this_test = caught.tb.tb_next
        assert beyond_this_test is not None
        shown = traceback.TracebackException(caught.type, caught.value, beyond_this_test, capture_locals=True)
        assert secret not in "".join(shown.format())


def test_option_of_a_subclass_is_its_own_matter() -> None:
    class Mine(Producer):
        def __init__(self, stream: str, *, colour: str, **options: Any) -> None:
            super().__init__(stream, **options)
            self.colour = colour

    assert Mine("s", colour="red", **OPTIONS).colour == "red"
    with pytest.raises(TypeError, match="linger is an option of Batching: batch="):
        Mine("s", colour="red", linger=1)


def test_every_class_with_options_is_checked_and_shows_its_signature() -> None:
    groups = {
        value
        for value in vars(kinstream.config).values()
        if isinstance(value, type) and hasattr(value, "__dataclass_fields__")
    }
    public = {style.__dict__[name] for style in (kinstream, blocking) for name in ("Client", "Producer", "Consumer")}
    assert _checked >= groups | public | {callbacks.Producer, callbacks.Consumer, Credentials, Server, Limits}
    for kind in _checked:
        init = vars(kind)["__init__"]
        assert _options(init), "its types can be read"
        assert "arguments" not in inspect.signature(init).parameters


def test_names_are_those_of_the_import() -> None:
    assert public_name(Client) == "kinstream.Client"
    assert public_name(blocking.Client) == "kinstream.blocking.Client"
    assert public_name(callbacks.Consumer) == "kinstream.callbacks.Consumer"
    assert public_name(str) == "str"
    assert public_name(ScriptedTransport) == "tests.doubles.transport.ScriptedTransport"


# Objects of another style


@pytest.mark.parametrize("kind", [Producer, Consumer])
def test_client_for_threads_is_refused_by_its_name(kind: Any) -> None:
    with blocking.Client(**OPTIONS) as client, pytest.raises(kinstream.ConfigError) as caught:
        kind("s", client=client)
    name = kind.__name__
    assert (
        caught.value.details
        == f"client: must be a kinstream.Client for a kinstream.{name}, not a kinstream.blocking.Client"
    )


@pytest.mark.parametrize("kind", [blocking.Producer, blocking.Consumer])
def test_client_for_asyncio_is_refused_by_its_name(kind: Any) -> None:
    with pytest.raises(kinstream.ConfigError) as caught:
        kind("s", client=Client(**OPTIONS))
    name = f"kinstream.blocking.{kind.__name__}"
    assert caught.value.details == f"client: must be a kinstream.blocking.Client for a {name}, not a kinstream.Client"


@pytest.mark.parametrize("kind", [Client, Producer, Consumer])
def test_with_of_an_object_for_asyncio_names_the_right_class(kind: Any) -> None:
    value = kind(*ARGUMENTS.get(kind, ()), **OPTIONS)
    name = kind.__name__
    with pytest.raises(TypeError) as caught, value:
        raise AssertionError
    right = f"use 'async with', or kinstream.blocking.{name} with 'with'"
    assert str(caught.value) == f"kinstream.{name} is for asyncio: {right}"


def test_for_over_a_consumer_for_asyncio_names_the_right_class() -> None:
    with pytest.raises(TypeError, match=r"use 'async for', or kinstream\.blocking\.Consumer with 'for'"):
        list(Consumer("s", **OPTIONS))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "create",
    [
        lambda: blocking.Client(**OPTIONS),
        lambda: blocking.Producer("s", **OPTIONS),
        lambda: blocking.Consumer("s", **OPTIONS),
        lambda: callbacks.Producer(*ACCOUNT),
        lambda: callbacks.Consumer(*ACCOUNT),
    ],
)
async def test_async_with_of_another_object_names_the_right_class(create: Callable[[], Any]) -> None:
    with create() as value, pytest.raises(TypeError) as caught:
        async with value:
            raise AssertionError
    right = f"use 'with', or kinstream.{type(value).__name__} with 'async with'"
    assert str(caught.value) == f"{public_name(type(value))} is not for asyncio: {right}"


async def test_async_for_over_a_consumer_for_threads_names_the_right_class() -> None:
    async def read(consumer: Any) -> None:
        async for _ in consumer:
            raise AssertionError

    said = r"use 'for', or kinstream\.Consumer with 'async for'"
    with blocking.Consumer("s", **OPTIONS) as consumer, pytest.raises(TypeError, match=said):
        await read(consumer)


async def test_delivery_for_threads_is_not_awaited() -> None:
    with blocking.Producer("s", batch=Batching(linger=60), **OPTIONS) as producer:
        for value in (producer.put(b"x", "key"), producer.put_many([(b"x", "key")])):
            with pytest.raises(TypeError, match=r"is not for asyncio: call its result\(\) or results\(\)"):
                await value  # type: ignore[misc]
        with pytest.raises(kinstream.Undelivered):
            producer.close(0)


# A delivery in place of its result

FIELDS = ["shard_id", "sequence_number", "subsequence_number", "maybe_duplicate"]


@pytest.mark.parametrize("name", FIELDS)
async def test_field_of_the_result_is_not_the_deliverys_and_says_so(name: str) -> None:
    producer = Producer("s", batch=Batching(linger=60), **OPTIONS)
    delivery: Any = await producer.put(b"x", "key")
    deliveries: Any = await producer.put_many([(b"x", "key")])
    with pytest.raises(AttributeError) as caught:
        getattr(delivery, name)
    assert str(caught.value) == f"kinstream.Delivery has no {name}: it belongs to the result, (await delivery).{name}"
    for attribute in (name, "result"):
        with pytest.raises(AttributeError, match="await the deliveries for the list of their results"):
            getattr(deliveries, attribute)
    with pytest.raises(TypeError, match=r"use \(await deliveries\)\[0\] for a result"):
        deliveries[0]
    assert not hasattr(delivery, name)
    with pytest.raises(kinstream.Undelivered):
        await producer.close(0)


@pytest.mark.parametrize("name", [*FIELDS, "attempts"])
def test_field_of_the_result_is_not_the_deliverys_in_threads_either(name: str) -> None:
    producer = blocking.Producer("s", batch=Batching(linger=60), **OPTIONS)
    delivery: Any = producer.put(b"x", "key")
    deliveries: Any = producer.put_many([(b"x", "key")])
    with pytest.raises(AttributeError) as caught:
        getattr(delivery, name)
    expected = f"kinstream.blocking.Delivery has no {name}: it belongs to the result, delivery.result().{name}"
    assert str(caught.value) == expected
    assert (
        traceback.format_exception(caught.value)[-1] == f"AttributeError: {expected}\n"
    )  # and no suggestion of Python's
    for attribute in (name, "result"):
        with pytest.raises(AttributeError, match=r"call results\(\) for the list of results"):
            getattr(deliveries, attribute)
    with pytest.raises(TypeError, match=r"use deliveries\.results\(\)\[0\] for a result"):
        deliveries[0]
    with pytest.raises(kinstream.Undelivered):
        producer.close(0)


# The extra


def hiding(code: str, *modules: str) -> subprocess.CompletedProcess[str]:
    """Run a program that cannot import some modules."""
    head = f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n"
    command = [sys.executable, "-c", head + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


ALL = ("cryptography", "h11", "h2", "hpack", "hypercorn", "hyperframe", "priority", "rich", "wsproto")
NEEDS = "which is not installed: pip install 'kinstream[local]'"


@pytest.mark.parametrize("modules", [ALL, ("hypercorn",), ("h2",)])
def test_local_without_the_extra_names_it(modules: tuple[str, ...]) -> None:
    ended = hiding("import kinstream, kinstream.blocking, kinstream.callbacks\nimport kinstream.local", *modules)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("kinstream.extra.ExtraMissing: kinstream.local needs h")
    assert last.endswith(NEEDS)


def test_tls_without_the_extra_names_it() -> None:
    ended = hiding("from kinstream.local import Server\nServer(tls_port=0).start()", "cryptography")
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last == f"kinstream.extra.ExtraMissing: tls_port needs cryptography, {NEEDS}"


@pytest.mark.parametrize("command", ["demo", "local"])
@pytest.mark.parametrize("modules", [ALL, ("hypercorn",), ("rich",)])
def test_command_without_the_extra_names_it_in_one_line(command: str, modules: tuple[str, ...]) -> None:
    if (command, modules) == ("local", ("rich",)):
        pytest.skip("the local server needs no rich")
    code = f"from kinstream.cli.main import main\nsys.exit(main(['{command}', *(['--port', '0'] * ('{command}' == 'local'))]))"
    ended = hiding(code, *modules)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"kinstream {command}: ")
    assert ended.stderr.endswith(NEEDS + "\n")
    assert ended.stderr.count("\n") == 1


def test_other_missing_module_is_not_blamed_on_the_extra() -> None:
    ended = hiding("import kinstream.local", "msgspec")
    assert "ExtraMissing" not in ended.stderr
    assert "msgspec" in ended.stderr


def test_attribute_that_a_class_has_is_left_alone() -> None:
    class Mine:
        shard_id = "shard-0"

    has_not(Mine, ("shard_id", "attempts"), "ask its {name}")
    assert Mine.shard_id == "shard-0"
    assert Mine.attempts is not None  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no attempts: ask its attempts"):
        Mine().attempts  # type: ignore[attr-defined]  # noqa: B018


def test_object_of_another_process_is_named_with_the_ways_out() -> None:
    assert "kinstream.Producer was used before this process was forked" in str(forked("kinstream.Producer"))

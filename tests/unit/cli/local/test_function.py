"""The function of an event source mapping: its import, its invocation and its failures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kinstream.cli.local.mapping.failure_folder import FailureFolder
from kinstream.cli.local.mapping.function import Context, Function, FunctionFailed, load
from kinstream.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which is searched for modules. Those that a test imports are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    before = set(sys.modules)
    yield tmp_path
    for name in sys.modules.keys() - before:
        del sys.modules[name]


def function(handler: Any) -> Function:
    return Function(handler, "handler", "eu-west-1")


def test_function_is_imported_from_the_current_folder(folder: Path) -> None:
    (folder / "orders").mkdir()
    (folder / "orders" / "work.py").write_text(
        "class Handler:\n    @staticmethod\n    def handle(event, context): return event\n"
    )
    found = load("orders.work:Handler.handle", "eu-west-1")
    assert (found.name, found.arn) == (
        "Handler.handle",
        "arn:aws:lambda:eu-west-1:000000000000:function:Handler.handle",
    )
    assert found.invoke({"Records": []}, "7") == {"Records": []}


@pytest.mark.parametrize(
    ("code", "name", "says"),
    [
        (None, "handler", "there is no module work in {folder} or on Python's path"),
        ("", "handler", "the module work has no handler"),
        ("handler = 7", "handler", "must be a function of an event and a context, not int"),
        (
            "async def handler(event, context): pass",
            "handler",
            "must be a function of an event and a context, not a coroutine function, whose body would never run",
        ),
        ("import absent_dependency", "handler", "work needs the module absent_dependency, which does not exist"),
        ("import work.absent", "handler", "work needs the module work.absent, which does not exist"),
        ("raise RuntimeError('no')", "handler", "importing work raised RuntimeError"),
        ("import sys; sys.exit(3)", "handler", "importing work raised SystemExit"),
        ("def handler(:", "handler", "importing work raised SyntaxError"),
    ],
    ids=["no module", "no name", "number", "coroutine", "dependency", "submodule", "exception", "exit", "syntax"],
)
def test_function_that_cannot_be_imported_is_named(folder: Path, code: str | None, name: str, says: str) -> None:
    if code is not None:
        (folder / "work.py").write_text(code)
    with pytest.raises(ConfigError) as caught:
        load(f"work:{name}", "eu-west-1")
    assert caught.value.details == f"invoke=work:{name}: {says.format(folder=folder)}"


def test_event_is_a_copy_and_the_response_is_converted_to_json() -> None:
    event = {"Records": [{"eventID": "7"}]}

    def handler(received: dict[str, Any], context: Context) -> Any:
        received["Records"].clear()
        assert context.aws_request_id == "request"
        return {1: (2, 3)}

    assert function(handler).invoke(event, "request") == {"1": [2, 3]}
    assert event == {"Records": [{"eventID": "7"}]}


@pytest.mark.parametrize("error", [ValueError, SystemExit, GeneratorExit])
def test_exception_of_the_function_is_shown_with_its_own_frames_only(
    error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    def handler(event: Any, context: Any) -> None:
        raise error("no")

    with pytest.raises(FunctionFailed, match=f"^{error.__name__}$"):
        function(handler).invoke({}, "7")
    shown = capsys.readouterr().err
    assert f"{error.__name__}: no" in shown
    assert shown.count("File ") == 1


@pytest.mark.parametrize("response", [object(), {"a": {1}}, b"bytes"], ids=["object", "set", "bytes"])
def test_response_that_json_does_not_have_is_a_failure(response: Any) -> None:
    with pytest.raises(
        FunctionFailed, match=f"^its response of type {type(response).__name__} cannot be converted to JSON$"
    ):
        function(lambda event, context: response).invoke({}, "7")


def test_interruption_is_no_failure() -> None:
    def handler(event: Any, context: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        function(handler).invoke({}, "7")


def test_destination_of_failures_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        FailureFolder(str(tmp_path / "file"))
    assert caught.value.details == f"on_failure={tmp_path / 'file'}: must be a folder that can be written: File exists"

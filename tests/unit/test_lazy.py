"""Public names are imported when they are first used, and behave as if the package had imported them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from types import ModuleType

import pytest

import kinstream
from kinstream import blocking, callbacks, errors
from kinstream.lazy import names_of

PACKAGES = [kinstream, blocking, callbacks]


def python(code: str) -> str:
    """Return the output of a program in a new process."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.strip()


@pytest.mark.parametrize("package", ["kinstream", "kinstream.blocking", "kinstream.callbacks"])
def test_import_of_a_package_loads_nothing_else(package: str) -> None:
    loaded = python(f"import sys, {package}; print(*sorted(name for name in sys.modules if name[:9] == 'kinstream'))")
    assert set(loaded.split()) == {package, "kinstream", "kinstream.interpreter", "kinstream.lazy"}
    loaded = python(f"import sys, {package}; print(*sys.modules)")
    assert {"msgspec", "pyreqwest", "asyncio", "ssl", "cbor2", "dataclasses"} & set(loaded.split()) == set()


def test_name_loads_its_module_only_when_it_is_used() -> None:
    code = """
import sys, kinstream
before = "kinstream.config" in sys.modules
found = kinstream.Polling
print(before, "kinstream.config" in sys.modules, "kinstream.consumer" in sys.modules, "Polling" in vars(kinstream))
"""
    assert python(code) == "False True False True"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_each_name_is_the_object_of_its_module(package: ModuleType) -> None:
    for name in package.__all__:
        found = getattr(package, name)
        assert getattr(package, name) is found
        home = getattr(found, "__module__", None)
        if isinstance(found, type) and home is not None and home.startswith("kinstream"):
            assert vars(sys.modules[home])[name] is found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_directory_of_a_package_has_its_names_before_they_are_used(package: ModuleType) -> None:
    listed = python(f"import {package.__name__} as package; print(*dir(package))").split()
    assert set(package.__all__) <= set(listed)
    assert listed == sorted(set(listed))
    assert {"__doc__", "__file__"} <= set(listed)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_star_import_binds_exactly_the_public_names(package: ModuleType) -> None:
    code = f"before = set(globals()); from {package.__name__} import *; print(*sorted(set(globals()) - before - {{'before'}}))"
    assert python(code).split() == sorted(package.__all__)


def test_name_that_does_not_exist_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match=r"^module 'kinstream' has no attribute 'Consumr'$") as raised:
        kinstream.Consumr  # type: ignore[attr-defined]  # noqa: B018
    assert raised.value.name == "Consumr"
    with pytest.raises(ImportError, match="cannot import name 'Consumr' from 'kinstream'"):
        exec("from kinstream import Consumr")
    assert not hasattr(kinstream, "__wrapped__")


def test_submodules_with_public_names_are_attributes_as_before() -> None:
    assert python("import kinstream; print(kinstream.errors.NotFound is kinstream.NotFound)") == "True"
    assert python("import kinstream.errors; print(kinstream.errors.NotFound is kinstream.NotFound)") == "True"
    assert python("from kinstream import blocking, events, producer; print(blocking.Client.__module__)") == (
        "kinstream.blocking.client"
    )
    assert not hasattr(kinstream, "no_such_module")


@pytest.mark.parametrize("name", ["ConfigError", "ReceivedRecord", "Position", "ErrorType", "ShardStarted"])
def test_module_that_is_imported_first_gives_the_same_object(name: str) -> None:
    home = getattr(kinstream, name).__module__
    assert python(f"from {home} import {name}; import kinstream; print(kinstream.{name} is {name})") == "True"


def test_pickles_load_in_a_process_that_imported_nothing() -> None:
    values = [
        kinstream.NotFound("gone", code="ResourceNotFoundException"),
        kinstream.ReceivedRecord(b"x", "1", 0.0),
        kinstream.TRIM_HORIZON,
        kinstream.Polling(),
        kinstream.Consumer,
        kinstream.ErrorType.REQUEST_FAILED,
    ]
    data = pickle.dumps(values)
    assert python(f"import pickle; print(*(type(one).__name__ for one in pickle.loads({data!r})))").split() == [
        type(value).__name__ for value in values
    ]


def test_threads_that_use_names_at_the_same_time_get_the_same_objects() -> None:
    code = """
import sys, threading
sys.setswitchinterval(1e-6)
import kinstream
start = threading.Barrier(16)
found = [{} for _ in range(16)]

def use(number):
    start.wait()
    names = list(kinstream.__all__)
    for name in names[number * 8:] + names[:number * 8]:
        found[number][name] = getattr(kinstream, name)

threads = [threading.Thread(target=use, args=(number,)) for number in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(found[0]) == len(kinstream.__all__), all(one[name] is found[0][name] for one in found for name in one))
print({len(one) for one in found} == {len(kinstream.__all__)})
"""
    assert python(code).split() == ["True"] * 3


@pytest.mark.parametrize(
    "module", ["record", "errors", "consume.deaggregate", "aws.client", "callbacks", "cli.main", "local"]
)
def test_each_module_can_be_imported_first(module: str) -> None:
    assert python(f"import kinstream.{module}; from kinstream import Producer; print(Producer.__name__)") == "Producer"


def test_module_that_uses_the_package_while_it_is_imported_by_the_package(tmp_path: os.PathLike[str]) -> None:
    code = f"""
import sys
from pathlib import Path
folder = Path({str(tmp_path)!r}, "lazy_package")
folder.mkdir()
(folder / "__init__.py").write_text('''
from kinstream.lazy import names_of
__getattr__, __dir__ = names_of(globals(), {{"One": "lazy_package.one", "Two": "lazy_package.two"}})
''')
(folder / "one.py").write_text("from lazy_package import Two\\nclass One(Two): pass\\n")
(folder / "two.py").write_text("import lazy_package\\nclass Two:\\n    def other(self): return lazy_package.One\\n")
sys.path.insert(0, {str(tmp_path)!r})
import lazy_package
print(lazy_package.Two().other() is lazy_package.One, lazy_package.One.__mro__[1] is lazy_package.Two)
"""
    assert python(code) == "True True"


def test_resolved_name_is_stored_and_no_longer_resolved() -> None:
    namespace = {"__name__": "kinstream"}
    resolve, names = names_of(namespace, {"NotFound": "kinstream.errors"})
    assert names() == ["NotFound", "__name__"]
    assert resolve("NotFound") is errors.NotFound
    assert resolve("errors") is errors
    assert namespace == {"__name__": "kinstream", "NotFound": errors.NotFound}

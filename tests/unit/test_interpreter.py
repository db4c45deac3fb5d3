"""Importing kinstream in another interpreter of the process, as servers that embed Python do, changes nothing in this one."""

import importlib.util
import subprocess
import sys

import pytest

HEAD = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

PAGE = b'{"Records":[{"Data":"aGk=","SequenceNumber":"1","ApproximateArrivalTimestamp":1.5}],"MillisBehindLatest":0}'

def elsewhere(code):
    other = interpreters.create()
    lines = "import sys; sys.path[:0] = " + repr(sys.path) + chr(10) + code
    try:
        failed = interpreters.run_string(other, lines)
    except Exception as error:
        failed = error
    interpreters.destroy(other)
    return str(getattr(failed, "msg", failed))

def check_here():
    import kinstream, msgspec
    from kinstream.speed import compiled
    if compiled is not None:
        record = compiled.page_from_json(PAGE)[0][0]
        assert type(record) is kinstream.ReceivedRecord
        repr(record)
    assert len(msgspec.json.decode(PAGE, type=kinstream.GetRecordsResult[bytes]).records) == 1
    kinstream.Client(region="us-east-1")
"""

ORDERS = {
    "here first": "check_here(); said = elsewhere('import kinstream'); check_here()",
    "elsewhere first": "said = elsewhere('import kinstream'); check_here()",
    "elsewhere again and again": "check_here(); said = [elsewhere('import kinstream.local') for _ in range(3)][0]; check_here()",
}


def run(code: str) -> str:
    command = [sys.executable, "-c", HEAD + code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize("order", ORDERS)
def test_import_in_another_interpreter_is_refused_and_changes_nothing_here(order: str) -> None:
    said = run(ORDERS[order] + "\nprint(said)")
    assert "kinstream works in the main interpreter only" in said


@pytest.mark.skipif(importlib.util.find_spec("kinstream._speed") is None, reason="not compiled")
def test_compiled_path_itself_is_refused_in_another_interpreter() -> None:
    said = run("""
import kinstream._speed
code = '''
from importlib.machinery import ExtensionFileLoader, ModuleSpec
import importlib.util
loader = ExtensionFileLoader("kinstream._speed", PATH)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("kinstream._speed", loader))
loader.exec_module(module)
'''.replace("PATH", repr(kinstream._speed.__file__))
check_here()
print(elsewhere(code))
check_here()
""")
    assert "main interpreter" in said or "subinterpreters" in said

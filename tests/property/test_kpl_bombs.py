"""Aggregated records with as much in them as can be: reading them takes four times their memory at most."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from tests.doubles.memory import peak_traced

from kinstream.kpl.container import unpack
from kinstream.kpl.message import MAGIC

SIZE = 128 * 1024
KEY = b"\x0a\x03key"

BOMBS = {
    "records": (KEY, b"\x1a\x04\x08\x00\x1a\x00"),
    "long keys": (b"\x0a\xff\x7f" + b"k" * 0x3FFF, b"\x1a\x04\x08\x00\x1a\x00"),
    "keys": (KEY, b"\x0a\x02ab"),
    "empty keys": (KEY, b"\x0a\x00"),
    "keys after records": (KEY + b"\x1a\x04\x08\x00\x1a\x00", b"\x0a\x02ab"),
    "hash keys": (KEY, b"\x12\x0212"),
    "unknown fields": (KEY, b"\x28\x01"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_takes_no_more_than_four_times_its_own_memory(name: str) -> None:
    head, repeated = BOMBS[name]
    message = head + repeated * ((SIZE - len(head) - 20) // len(repeated))
    data = MAGIC + message + hashlib.md5(message).digest()

    def read() -> None:
        found = unpack(data)
        assert found is not None
        assert sum(1 for _ in found) == len(found)

    assert peak_traced(read) + len(data) <= 4 * len(data)


READER = """
import sys
from tests.doubles.memory import peak_bytes
from kinstream.kpl.container import unpack
data = sys.stdin.buffer.read()
before = peak_bytes()
found = unpack(data)
read = sum(1 for _ in found)
print(len(found), read, peak_bytes() - before)
"""


@pytest.mark.parametrize(("size", "count"), [(1024 * 1024, 174_759), (10 * 1024 * 1024, 1_747_623)])
def test_largest_bombs_take_a_process_no_more_than_four_times_their_own_memory(size: int, count: int) -> None:
    message = b"\x0a\x00" + b"\x1a\x04\x08\x00\x1a\x00" * ((size - 20 - 2) // 6)
    data = MAGIC + message + hashlib.md5(message).digest()
    child = subprocess.run([sys.executable, "-c", READER], input=data, capture_output=True, check=True)
    claimed, read, memory = map(int, child.stdout.split())
    assert claimed == read == count
    assert memory + len(data) <= 4 * len(data)

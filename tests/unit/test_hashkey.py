import subprocess
import sys
from hashlib import md5
from itertools import pairwise

import pytest

from kinstream.sharding.hashkey import (
    MAX_HASH_KEY,
    _fastest_md5,
    even_ranges,
    hash_key,
    hash_key_bytes,
    parse_hash_key,
)


def test_partition_key_is_hashed_as_utf8() -> None:
    assert hash_key("Zürich 🛫") == int(md5("Zürich 🛫".encode()).hexdigest(), 16)


@pytest.mark.parametrize("text", ["0", "1", "123", str(MAX_HASH_KEY)])
def test_decimal_number_below_2_to_the_128_is_a_hash_key(text: str) -> None:
    assert parse_hash_key(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "00", "01", "-1", "+1", "1.0", " 1", "1\n", "\u0661", "0x1", "1e3", str(2**128), "9" * 39, "1" * 5000]
)
def test_anything_else_is_no_hash_key(text: str) -> None:
    assert parse_hash_key(text) is None


@pytest.mark.parametrize("count", [1, 2, 3, 7, 1000])
def test_even_ranges_cover_every_hash_key_once(count: int) -> None:
    ranges = even_ranges(count)
    assert len(ranges) == count
    assert ranges[0][0] == 0
    assert ranges[-1][1] == MAX_HASH_KEY
    for (_, end), (start, _) in pairwise(ranges):
        assert start == end + 1
    sizes = {end - start + 1 for start, end in ranges}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("key", ["", "a", "Zürich 🛫", "k" * 256])
def test_hash_key_as_bytes_is_the_number_in_big_endian(key: str) -> None:
    assert hash_key_bytes(key) == hash_key(key).to_bytes(16, "big") == md5(key.encode()).digest()


@pytest.mark.parametrize("number", [0, 1, 2**127, MAX_HASH_KEY])
def test_explicit_hash_key_decides_in_the_keys_place(number: int) -> None:
    assert hash_key_bytes("key", str(number)) == number.to_bytes(16, "big")


# FIPS builds switch CPython's own MD5 off by a ValueError; other builds leave it out.
WITHOUT_BUILT_IN = """
import sys, types
def refuse(data, **_): raise ValueError("disabled for FIPS")
module = types.ModuleType("_md5")
module.md5 = refuse
sys.modules["_md5"] = {module}
from kinstream.sharding.hashkey import hash_key_bytes, md5
print(hash_key_bytes("a").hex(), getattr(md5, "func", None).__module__)
"""


@pytest.mark.parametrize("module", ["None", "module"])
def test_pythons_own_md5_may_be_missing(module: str) -> None:
    code = WITHOUT_BUILT_IN.replace("{module}", module)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == ["0cc175b9c0f1b6a831c399e269772661", "_hashlib"]


@pytest.mark.parametrize("missing", ["module", "interpreter"])
def test_openssl_computes_md5_if_python_has_none_of_its_own(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "module":
        monkeypatch.setitem(sys.modules, "_md5", None)
    else:
        monkeypatch.setattr(sys.implementation, "name", "another")
    assert _fastest_md5()(b"a").digest().hex() == "0cc175b9c0f1b6a831c399e269772661"

from hashlib import md5
from itertools import pairwise

import pytest

from kinstream.sharding.hashkey import MAX_HASH_KEY, even_ranges, hash_key, parse_hash_key


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

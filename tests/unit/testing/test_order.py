"""assert_in_order fails exactly if a new value of a key is lower than an earlier one."""

from __future__ import annotations

import pytest

from kinstream.record import ReceivedRecord
from kinstream.testing import assert_in_order


def check(*pairs: tuple[str, int]) -> None:
    assert_in_order(pairs, key=lambda pair: pair[0], value=lambda pair: pair[1])


@pytest.mark.parametrize(
    "pairs",
    [
        [("a", 1)],
        [("a", 1), ("a", 2), ("a", 5)],
        [("a", 5), ("b", 1), ("b", 2), ("a", 6)],
        [("a", 1), ("a", 2), ("a", 3), ("a", 1), ("a", 2), ("a", 4)],
        [("a", 2), ("a", 2)],
    ],
    ids=["one", "ascending", "two keys", "repeated", "equal"],
)
def test_values_in_order_pass_with_repetitions(pairs: list[tuple[str, int]]) -> None:
    check(*pairs)


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([("a", 2), ("a", 1)], "key 'a': the value 1 arrived after 2, as record 1 (from 0)"),
        (
            [("a", 1), ("b", 9), ("a", 4), ("a", 4), ("a", 3)],
            "key 'a': the value 3 arrived after 4, as record 4 (from 0)",
        ),
        ([("a", 1), ("a", 3), ("a", 1), ("a", 2)], "key 'a': the value 2 arrived after 3, as record 3 (from 0)"),
        ([], "there are no records: the order of none cannot be checked"),
    ],
    ids=["descending", "one of two keys", "after a repetition", "empty"],
)
def test_lower_value_is_reported_with_its_place(pairs: list[tuple[str, int]], says: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check(*pairs)
    assert str(caught.value) == says


def test_default_key_is_the_partition_key() -> None:
    records = [ReceivedRecord(b"%d" % n, str(n), 0.0, key) for n, key in enumerate("aab")]
    assert_in_order(records, value=lambda record: int(record.data))
    assert_in_order([records[2], records[0], records[1]], value=lambda record: int(record.data))
    with pytest.raises(AssertionError, match="key 'a'"):
        assert_in_order([records[2], records[1], records[0]], value=lambda record: int(record.data))

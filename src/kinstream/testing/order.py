"""assert_in_order: checks that the records of each key arrived in the order in which they were written. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


def assert_in_order(
    records: Iterable[T],
    *,
    key: Callable[[T], Hashable] = attrgetter("partition_key"),
    value: Callable[[T], Any],
) -> None:
    """Assert that the values of each key arrived in ascending order.

    Delivery is at least once, so a value that has arrived before may arrive again at any place. The first arrivals of the
    values of each key must be in order. Check the number of records to exclude duplicates.

    Args:
        records: Records in the order of their arrival, such as those of `consume_all`.
        key: Function that returns the key of a record. Records of different keys have no order. By default, its partition key.
        value: Function that returns the value of a record. Values must be hashable, and comparable with the others of their key.

    Raises:
        AssertionError: A value arrived after a higher one of its key, or there are no records.

    Example:
        >>> from kinstream.testing import assert_in_order
        >>> assert_in_order([("a", 1), ("b", 1), ("a", 2), ("a", 1), ("a", 3)], key=lambda r: r[0], value=lambda r: r[1])
        >>> assert_in_order([("a", 1), ("a", 3), ("a", 2)], key=lambda r: r[0], value=lambda r: r[1])
        Traceback (most recent call last):
        ...
        AssertionError: key 'a': the value 2 arrived after 3, as record 2 (from 0)
    """
    arrived: dict[Hashable, set[Any]] = {}
    highest: dict[Hashable, Any] = {}
    for index, record in enumerate(records):
        of, found = key(record), value(record)
        if of not in highest:
            highest[of], arrived[of] = found, {found}
        elif found not in arrived[of]:
            if not found > highest[of]:
                raise AssertionError(
                    f"key {of!r}: the value {found!r} arrived after {highest[of]!r}, as record {index} (from 0)"
                )
            highest[of] = found
            arrived[of].add(found)
    if not highest:
        raise AssertionError("there are no records: the order of none cannot be checked")

"""Page size: smaller after broken responses, larger again after complete ones."""

from __future__ import annotations

from kinstream.consume.fetch.page_size import RETRY_AFTER, PageSize


def test_each_broken_response_makes_the_next_page_smaller_down_to_one_record() -> None:
    size = PageSize(10_000)
    limits = []
    while size.broke():
        limits.append(size.limit)
    assert limits == [2500, 625, 156, 39, 9, 2, 1]
    assert size.limit == 1


def test_page_size_grows_immediately_below_the_broken_limit_and_beyond_it_only_after_several_responses() -> None:
    size = PageSize(10_000)
    size.broke()
    for _ in range(3):
        size.broke()
    assert size.limit == 39  # 156 broke
    limits = []
    for _ in range(2 * RETRY_AFTER):
        size.arrived()
        limits.append(size.limit)
    assert limits[:RETRY_AFTER] == [78, 78, 78, 156]
    assert limits[-1] == 312


def test_page_size_recovers_completely() -> None:
    size = PageSize(1000)
    size.broke()
    for _ in range(100):
        size.arrived()
    assert size.limit == 1000

from hypothesis import given
from hypothesis import strategies as st

from kinstream.local.operations.tokens import Iterator, Sealer, ShardsPage, StreamsPage
from kinstream.service_quotas import SHARD_ITERATOR_MAX_CHARACTERS

SEALER = Sealer(b"k" * 32)
ITERATOR = Iterator("orders", 1_700_000_000_000, 3, 42, 1_700_000_100_000)


def test_what_was_sealed_comes_back() -> None:
    page = ShardsPage("orders", 5, -1, "AT_TIMESTAMP", 1.5, 7)
    assert SEALER.open(SEALER.seal(ITERATOR), Iterator) == ITERATOR
    assert SEALER.open(SEALER.seal(page), ShardsPage) == page


def test_one_kind_is_not_taken_for_another() -> None:
    assert SEALER.open(SEALER.seal(ITERATOR), ShardsPage) is None
    assert SEALER.open(SEALER.seal(StreamsPage("a", 1)), Iterator) is None


def test_another_servers_seal_is_no_seal() -> None:
    assert SEALER.open(Sealer(b"x" * 32).seal(ITERATOR), Iterator) is None


def test_longest_iterator_is_as_long_as_aws_allows_at_most() -> None:
    longest = Iterator("n" * 128, 2**53, 2**32, 2**40, 2**53)
    assert len(SEALER.seal(longest)) <= SHARD_ITERATOR_MAX_CHARACTERS


@given(st.integers(0, 10_000), st.characters())
def test_any_changed_character_breaks_the_seal(position: int, character: str) -> None:
    text = SEALER.seal(ITERATOR)
    position %= len(text)
    changed = text[:position] + character + text[position + 1 :]
    assert (SEALER.open(changed, Iterator) is None) == (changed != text)


@given(st.text() | st.binary().map(lambda b: b.hex()))
def test_nonsense_is_no_token(text: str) -> None:
    assert SEALER.open(text, Iterator) is None

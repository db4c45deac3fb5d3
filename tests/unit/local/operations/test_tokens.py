"""Shard iterators and page tokens."""

from __future__ import annotations

import base64

from hypothesis import example, given
from hypothesis import strategies as st

from kinstream.local.operations.tokens import ShardIterator, ShardsPage, StreamsPage, TokenCodec
from kinstream.service_quotas import SHARD_ITERATOR_MAX_CHARACTERS

TOKENS = TokenCodec(b"k" * 32)
ITERATOR = ShardIterator("orders", 1_700_000_000_000, 3, 42, 1_700_000_100_000)


def test_decoding_returns_the_encoded_content() -> None:
    page = ShardsPage("orders", 5, -1, "AT_TIMESTAMP", 1.5, 7)
    assert TOKENS.decode(TOKENS.encode(ITERATOR), ShardIterator) == ITERATOR
    assert TOKENS.decode(TOKENS.encode(page), ShardsPage) == page


def test_token_of_another_kind_is_rejected() -> None:
    assert TOKENS.decode(TOKENS.encode(ITERATOR), ShardsPage) is None
    assert TOKENS.decode(TOKENS.encode(StreamsPage("a", 1)), ShardIterator) is None


def test_token_of_another_server_is_rejected() -> None:
    assert TOKENS.decode(TokenCodec(b"x" * 32).encode(ITERATOR), ShardIterator) is None


def test_longest_iterator_has_at_most_the_length_that_aws_allows() -> None:
    longest = ShardIterator("n" * 128, 2**53, 2**32, 2**40, 2**53)
    assert len(TOKENS.encode(longest)) <= SHARD_ITERATOR_MAX_CHARACTERS


@given(st.integers(0, 10_000), st.characters())
@example(502, "B")  # the last bits of base64 are padding: this token has the same bytes
def test_token_with_a_changed_byte_is_rejected(position: int, character: str) -> None:
    text = TOKENS.encode(ITERATOR)
    position %= len(text)
    changed = text[:position] + character + text[position + 1 :]
    try:
        same = base64.b64decode(changed, validate=True) == base64.b64decode(text)
    except ValueError:
        same = False
    assert TOKENS.decode(changed, ShardIterator) == (ITERATOR if same else None)


@given(st.text() | st.binary().map(lambda b: b.hex()))
def test_invalid_text_is_not_a_token(text: str) -> None:
    assert TOKENS.decode(text, ShardIterator) is None

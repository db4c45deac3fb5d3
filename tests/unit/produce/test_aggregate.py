from __future__ import annotations

from tests.unit.produce.shapes import delivery, some

from kinstream.kpl.container import is_container, unpack
from kinstream.produce.aggregate import pack, write_digests
from kinstream.produce.pending import Aggregate
from kinstream.sharding.hashkey import hash_key


def test_records_are_packed_under_the_kpls_outer_key_and_the_first_records_hash_key() -> None:
    entry, taken = pack([delivery("pk1", b"hello"), delivery("pk2", b"world")], 0, 10, 51200, 1000)
    assert isinstance(entry, Aggregate)
    assert taken == 2
    write_digests([entry])
    # Made with aws-kinesis-agg 1.2.3.
    assert entry.data.hex() == (
        "f3899ac20a03706b310a03706b321a0908001a0568656c6c6f1a0908011a05776f726c6487c22af1ed18e292eb55b018413a3cff"
    )
    assert (entry.partition_key, entry.explicit_hash_key) == ("a", str(hash_key("pk1")))
    assert entry.size == len(entry.data) + 1


def test_the_first_records_explicit_hash_key_is_the_aggregates() -> None:
    entry, _ = pack([delivery("pk1", hash_key="123"), delivery("pk2")], 0, 10, 51200, 1000)
    assert entry.explicit_hash_key == "123"


def test_single_record_is_not_aggregated() -> None:
    only = delivery()
    assert pack([only], 0, 10, 51200, 1000) == (only, 1)
    large = delivery(data=b"x" * 60_000)
    assert pack([large, delivery()], 0, 10, 51200, 1000) == (large, 1)


def test_records_that_fit_are_packed_in_order_whatever_the_guess() -> None:
    waiting = some(1000)
    sizes = set()
    for guess in (1, 7, 400, 5000):
        entry, taken = pack(waiting, 100, guess, 51200, 10_000)
        assert isinstance(entry, Aggregate)
        assert entry.members == waiting[100 : 100 + taken]
        assert entry.size <= 51200
        sizes.add((taken, entry.size))
    ((taken, size),) = sizes
    assert size + 100 > 51200 - 30
    assert pack(waiting, 0, 50, 51200, 17)[1] == 17


def test_packed_records_are_unpacked_unchanged() -> None:
    waiting = [delivery(f"k{number % 3}", b"%d" % number, hash_key="7" if number % 2 else None) for number in range(50)]
    entry, _ = pack(waiting, 0, 50, 51200, 1000)
    write_digests([entry])
    assert is_container(entry.data)
    found = unpack(entry.data)
    assert found is not None
    assert [tuple(one) for one in found] == [(one.partition_key, one.explicit_hash_key, one.data) for one in waiting]

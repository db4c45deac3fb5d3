"""Aggregated records that aws-kinesis-agg 1.2.3 made (github.com/awslabs/kinesis-aggregation)."""

from __future__ import annotations

import pytest

from kinstream.kpl.builder import Builder
from kinstream.kpl.container import UserRecord, unpack

HIGH = str(2**127)
VECTORS: dict[str, tuple[str, list[UserRecord]]] = {
    "two keys": (
        "f3899ac20a03706b310a03706b321a0908001a0568656c6c6f1a0908011a05776f726c6487c22af1ed18e292eb55b018413a3cff",
        [("pk1", None, b"hello"), ("pk2", None, b"world")],
    ),
    "one key twice": (
        "f3899ac20a03706b311a0908001a0568656c6c6f1a0908001a05776f726c64f5fb92b07d5dc986bb5915e9657557aa",
        [("pk1", None, b"hello"), ("pk1", None, b"world")],
    ),
    "two hash keys": (
        (
            "f3899ac20a03706b310a03706b3212013012273137303134313138333436303436393233313733313638373330333731353838343130353732"
            "381a0b080010001a0568656c6c6f1a0b080110011a05776f726c64d4a514c4c13b820a3bf370cdeffa40c5"
        ),
        [("pk1", "0", b"hello"), ("pk2", HIGH, b"world")],
    ),
    "a hash key for the second alone": (
        (
            "f3899ac20a03706b310a03706b3212033132331a0908001a0568656c6c6f1a0b080110001a05776f726c64"
            "cb48b8211afb3c05f4c31852c9aff58e"
        ),
        [("pk1", None, b"hello"), ("pk2", "123", b"world")],
    ),
    "one hash key twice": (
        (
            "f3899ac20a03706b3112033132331a0b080010001a0568656c6c6f1a0b080010001a05776f726c64"
            "35c941aca87ae80a9b3d5b960e9f8892"
        ),
        [("pk1", "123", b"hello"), ("pk1", "123", b"world")],
    ),
    "one record": (
        "f3899ac20a03706b311a0908001a0568656c6c6f45b934a102bc7b7b8405a3942044f2c8",
        [("pk1", None, b"hello")],
    ),
}
EACH = pytest.mark.parametrize(("text", "records"), VECTORS.values(), ids=VECTORS)


@EACH
def test_builder_writes_what_the_aggregation_library_writes(text: str, records: list[UserRecord]) -> None:
    builder = Builder(51_200, 500)
    assert builder.extend(records) == len(records)
    assert builder.finish().hex() == text
    assert builder.size == len(text) // 2


@EACH
def test_reader_reads_what_the_aggregation_library_writes(text: str, records: list[UserRecord]) -> None:
    found = unpack(bytes.fromhex(text))
    assert found is not None
    assert list(found) == records

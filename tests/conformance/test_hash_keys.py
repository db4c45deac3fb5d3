"""Hash keys that others computed."""

import pytest

from kinstream.sharding.hashkey import hash_key

# RFC 1321, appendix A.5, "Test suite".
RFC_1321 = {
    "a": "0cc175b9c0f1b6a831c399e269772661",
    "abc": "900150983cd24fb0d6963f7d28e17f72",
    "message digest": "f96b697d7cb7938d525a2f31aaf161d0",
    "abcdefghijklmnopqrstuvwxyz": "c3fcd3d76192e4007dfb496cca67e13b",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789": "d174ab98d277d9f5a5611c2c9f419d9f",
    "1234567890" * 8: "57edf4a22be3c955ac49da2e2107b67a",
}

# Made with aws-kinesis-agg 1.2.3 (github.com/awslabs/kinesis-aggregation).
KINESIS_AGG = {
    "pk1": 329398341438914906102347661116985167824,
    "pk2": 122875064651314509700510597659732835739,
}


@pytest.mark.parametrize(("key", "digest"), RFC_1321.items())
def test_hash_key_is_the_md5_of_the_rfc_as_a_big_endian_number(key: str, digest: str) -> None:
    assert hash_key(key) == int(digest, 16)


@pytest.mark.parametrize(("key", "number"), KINESIS_AGG.items())
def test_hash_key_is_the_aggregation_librarys(key: str, number: int) -> None:
    assert hash_key(key) == number

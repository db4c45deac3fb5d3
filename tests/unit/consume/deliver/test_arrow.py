"""RecordBatch.to_arrow: its columns, and the engines that accept it."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinstream import EncryptionType, ReceivedRecord, RecordBatch

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

SHARD = "shardId-000000000007"
RECORDS = [
    ReceivedRecord(b"plain", "49590338271490256608559692538361571095921575989136588898", 1_800_000_000.123, "key"),
    ReceivedRecord(b"\x00\xff", "49590338271490256608559692538361571095921575989136588899", 0.0, None),
    ReceivedRecord(b"", "7", 1_800_000_001.0, "schlüssel", EncryptionType.KMS, 0),
    ReceivedRecord(b"last", "7", 1_800_000_001.0, "k" * 256, EncryptionType.KMS, 70_000),
]
BATCH = RecordBatch(RECORDS, SHARD, 5, stream_name="events")
COLUMNS = {
    "partitionKey": "string",
    "data": "binary",
    "stream": "string",
    "shardId": "string",
    "sequenceNumber": "string",
    "approximateArrivalTimestamp": "timestamp[us, tz=UTC]",
    "subsequenceNumber": "int32",
}


def test_columns_have_these_names_types_and_order() -> None:
    schema = BATCH.to_arrow().schema
    assert [(field.name, str(field.type)) for field in schema] == list(COLUMNS.items())
    assert isinstance(BATCH.to_arrow(), pyarrow.RecordBatch)


def test_rows_are_the_records() -> None:
    BATCH.to_arrow().validate(full=True)
    assert BATCH.to_arrow().to_pylist() == [
        {
            "partitionKey": record.partition_key,
            "data": record.data,
            "stream": "events",
            "shardId": SHARD,
            "sequenceNumber": record.sequence_number,
            "approximateArrivalTimestamp": datetime(1970, 1, 1, tzinfo=UTC)
            + timedelta(milliseconds=round(record.arrival_time * 1000)),
            "subsequenceNumber": record.subsequence_number,
        }
        for record in RECORDS
    ]


@given(st.integers(0, 4_000_000_000_000))
def test_milliseconds_of_the_service_are_exact_until_the_year_2096(milliseconds: int) -> None:
    record = ReceivedRecord(b"", "1", milliseconds / 1000, "k")
    column = RecordBatch([record], SHARD, None).to_arrow().column("approximateArrivalTimestamp")
    assert column.cast(pyarrow.int64()).to_pylist() == [milliseconds * 1000]


@given(st.lists(st.binary(max_size=20), min_size=1), st.none() | st.integers(0, 2**31 - 1), st.none() | st.text())
def test_any_records_are_converted(contents: list[bytes], index: int | None, key: str | None) -> None:
    records = [ReceivedRecord(data, "1", 1.0, key, subsequence_number=index) for data in contents]
    found = RecordBatch(records, SHARD, None).to_arrow()
    assert found.column("data").to_pylist() == contents
    assert set(found.column("subsequenceNumber").to_pylist()) == {index}
    assert set(found.column("partitionKey").to_pylist()) == {key}


def test_polars_takes_it() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.from_arrow(BATCH.to_arrow())
    assert frame.columns == list(COLUMNS)
    assert frame["data"].to_list() == [record.data for record in RECORDS]
    assert frame["approximateArrivalTimestamp"].dtype == polars.Datetime("us", "UTC")
    assert frame.filter(polars.col("subsequenceNumber").is_null()).height == 2


def test_pandas_takes_it() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = BATCH.to_arrow().to_pandas()
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame["sequenceNumber"]) == [record.sequence_number for record in RECORDS]
    assert str(frame["approximateArrivalTimestamp"].dtype) == "datetime64[us, UTC]"


def test_duckdb_takes_it() -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    with duckdb.connect() as connection:
        connection.register("records", BATCH.to_arrow())
        found = connection.execute(
            'SELECT "partitionKey", octet_length(data), "subsequenceNumber" FROM records WHERE "sequenceNumber" = \'7\''
        ).fetchall()
    assert found == [("schlüssel", 0, 0), ("k" * 256, 4, 70_000)]


def test_parquet_has_the_same_rows(tmp_path: object) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_batches([BATCH.to_arrow()]), f"{tmp_path}/records.parquet")
    assert parquet.read_table(f"{tmp_path}/records.parquet").to_pylist() == BATCH.to_arrow().to_pylist()


def test_error_names_the_extra_if_pyarrow_is_not_installed() -> None:
    code = """
import sys
sys.modules["pyarrow"] = None
from kinstream import RecordBatch, ReceivedRecord
try:
    RecordBatch([ReceivedRecord(b"", "1", 1.0)], "s", 0).to_arrow()
except ModuleNotFoundError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == (
        "RecordBatch.to_arrow needs pyarrow, which is not installed: pip install 'kinstream[arrow]'\n"
    )

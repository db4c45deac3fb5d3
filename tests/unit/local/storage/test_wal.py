"""Damage to a write-ahead log that SQLite ignores is reported, and the remains of a crash are not."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from kinstream.local.storage.database import PAGE_BYTES, SqliteStore
from kinstream.local.storage.record_store import Chunk, pack
from kinstream.local.storage.wal import WriteAheadLog

HEADER_BYTES = 32
FRAME_BYTES = 24 + PAGE_BYTES
COMMITS = 12


def chunk(place: int, data: bytes = b"x") -> Chunk:
    return Chunk(1, place, 5, 1, len(data) + 1, pack([("k", data)]))


@pytest.fixture
async def killed(tmp_path: Path) -> Path:
    """A folder as a kill leaves it: tables and records are in the write-ahead log only."""
    store = SqliteStore(tmp_path / "live")
    for place in range(1, COMMITS + 1):
        await store.write([chunk(place)])
    folder = tmp_path / "killed"
    shutil.copytree(tmp_path / "live", folder)
    store.close()
    return folder


def log_of(folder: Path) -> Path:
    return folder / "kinesis.sqlite3-wal"


def frames_of(folder: Path) -> int:
    return (log_of(folder).stat().st_size - HEADER_BYTES) // FRAME_BYTES


def invert(folder: Path, at: int) -> None:
    data = bytearray(log_of(folder).read_bytes())
    data[at] ^= 0xFF
    log_of(folder).write_bytes(data)


async def places(folder: Path) -> int:
    """Return how many records a store finds."""
    store = SqliteStore(folder)
    try:
        return len(store.read(1, 1, limit=10_000, size=1 << 40))
    finally:
        store.close()


async def test_log_left_by_a_kill_is_recovered_without_a_report(killed: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await places(killed) == COMMITS
    assert not caplog.records


async def test_damage_is_reported_if_a_later_commit_proves_it(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(frames_of(killed)):
        for offset in (0, 5, 9, 17, 24, FRAME_BYTES // 2, FRAME_BYTES - 1):
            damaged = tmp_path / f"{number}-{offset}"
            shutil.copytree(killed, damaged)
            invert(damaged, HEADER_BYTES + number * FRAME_BYTES + offset)
            caplog.clear()
            found = await places(damaged)
            said = [record for record in caplog.records if record.levelname == "ERROR"]
            assert found < COMMITS
            assert bool(said) == (COMMITS - found > 1), "a broken last commit may have been incomplete"
            assert all("write-ahead log is damaged" in record.getMessage() for record in said)
            shutil.rmtree(damaged)


async def test_report_names_the_folder_and_the_extent_of_the_loss(
    killed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = frames_of(killed)
    invert(killed, HEADER_BYTES + (frames - 3) * FRAME_BYTES + 100)
    lost = COMMITS - await places(killed)
    (record,) = caplog.records
    assert repr(str(killed)) in record.getMessage()
    assert f"{frames - 3} of {frames} were recovered, and {lost} commits were not" in record.getMessage()
    assert "Everything acknowledged after that point is lost" in record.getMessage()


async def test_damage_is_reported_once(killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    invert(killed, HEADER_BYTES + (frames_of(killed) - 4) * FRAME_BYTES + 100)
    store = SqliteStore(killed)
    assert len(caplog.records) == 1
    await store.write([chunk(100)])
    shutil.copytree(killed, tmp_path / "again")
    store.close()
    await places(tmp_path / "again")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("at", [0, 9, 17, 25, 31])
async def test_invalid_header_is_reported(killed: Path, at: int, caplog: pytest.LogCaptureFixture) -> None:
    invert(killed, at)
    assert await places(killed) == 0
    (record,) = caplog.records
    assert "its header is invalid" in record.getMessage()


async def test_log_of_zeros_is_reported(killed: Path, caplog: pytest.LogCaptureFixture) -> None:
    log_of(killed).write_bytes(bytes(log_of(killed).stat().st_size))
    assert await places(killed) == 0
    assert "its header is invalid" in caplog.text


@pytest.mark.parametrize("left", [0, 1, 31, 32, 33, HEADER_BYTES + 24, HEADER_BYTES + FRAME_BYTES - 1])
async def test_truncated_log_is_not_reported_as_damage(
    killed: Path, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    log_of(killed).write_bytes(log_of(killed).read_bytes()[:left])
    assert await places(killed) == 0
    assert not caplog.records


async def test_incomplete_last_transaction_is_not_reported_as_damage(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = frames_of(killed)
    for cut in (1, 24, FRAME_BYTES // 2, FRAME_BYTES - 1, FRAME_BYTES):
        torn = tmp_path / f"torn-{cut}"
        shutil.copytree(killed, torn)
        data = log_of(torn).read_bytes()
        log_of(torn).write_bytes(data[: HEADER_BYTES + frames * FRAME_BYTES - cut])
        assert await places(torn) == COMMITS - 1
    assert not caplog.records


async def test_frames_from_before_the_last_checkpoint_are_not_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(tmp_path / "live")
    for place in range(1, COMMITS + 1):
        await store.write([chunk(place)])
    with sqlite3.connect(tmp_path / "live" / "kinesis.sqlite3") as other:
        other.execute("PRAGMA wal_checkpoint(RESTART)")
    other.close()
    await store.write([chunk(COMMITS + 1)])
    shutil.copytree(tmp_path / "live", tmp_path / "killed")
    store.close()
    assert frames_of(tmp_path / "killed") > 3, "old frames are left behind the new ones"
    assert await places(tmp_path / "killed") == COMMITS + 1
    assert not caplog.records


async def test_frames_of_a_transaction_that_was_rolled_back_are_not_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(tmp_path / "live")
    await store.write([chunk(1)])
    other = sqlite3.connect(tmp_path / "live" / "kinesis.sqlite3", isolation_level=None)
    other.execute("PRAGMA cache_size = 1")  # so that frames are written before the commit
    other.execute("BEGIN IMMEDIATE")
    for number in range(200):
        other.execute("INSERT INTO chunks VALUES (?, 0, 1, 1, ?)", (1 << 60 | number, bytes(PAGE_BYTES)))
    other.execute("ROLLBACK")
    written = frames_of(tmp_path / "live")
    other.close()
    await store.write([chunk(2)])
    shutil.copytree(tmp_path / "live", tmp_path / "killed")
    store.close()
    assert written > 100
    assert frames_of(tmp_path / "killed") == written, "they are left behind the new ones"
    assert await places(tmp_path / "killed") == 2
    assert not caplog.records


def test_missing_log_has_no_damage(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path / "missing")
    assert log.damage(0) is None
    log.close()

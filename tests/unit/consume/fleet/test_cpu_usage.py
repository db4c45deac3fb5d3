"""CPU usage of the machine or the container, from the files of the kernel."""

from __future__ import annotations

from pathlib import Path

from kinstream.consume.fleet.cpu_usage import VALUES, CpuUsage


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "ascii")


def test_the_usage_of_a_machine_is_the_time_that_it_was_not_idle(tmp_path: Path) -> None:
    usage = CpuUsage(tmp_path)
    write(tmp_path / "proc/stat", "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n")
    assert usage.sample(0) == []
    write(tmp_path / "proc/stat", "cpu  130 0 110 750 110 0 0 0 0 0\ncpu0 1 2 3\n")
    assert usage.sample(10) == [40.0]
    assert usage.sample(20) == [40.0]  # no time has passed for the kernel


def test_the_usage_of_a_container_is_a_part_of_its_limit(tmp_path: Path) -> None:
    usage = CpuUsage(tmp_path)
    write(tmp_path / "proc/stat", "cpu  100 0 100 700 100 0 0 0 0 0\n")
    write(tmp_path / "sys/fs/cgroup/cpu.max", "200000 100000\n")
    write(tmp_path / "sys/fs/cgroup/cpu.stat", "usage_usec 1000000\nuser_usec 1\n")
    assert usage.sample(100) == []
    write(tmp_path / "sys/fs/cgroup/cpu.stat", "usage_usec 6000000\nuser_usec 1\n")
    assert usage.sample(110) == [25.0]


def test_a_container_without_a_limit_uses_the_machine(tmp_path: Path) -> None:
    usage = CpuUsage(tmp_path)
    write(tmp_path / "sys/fs/cgroup/cpu.max", "max 100000\n")
    write(tmp_path / "proc/stat", "cpu  0 0 0 0 0 0 0 0 0 0\n")
    usage.sample(0)
    write(tmp_path / "proc/stat", "cpu  100 0 0 0 0 0 0 0 0 0\n")
    assert usage.sample(1) == [100.0]


def test_only_the_last_values_are_kept(tmp_path: Path) -> None:
    usage = CpuUsage(tmp_path)
    for n in range(VALUES + 5):
        write(tmp_path / "proc/stat", f"cpu  {n * n} 0 0 {n * 100} 0 0 0 0 0 0\n")
        values = usage.sample(n)
    assert len(values) == VALUES
    assert values == sorted(values)


def test_a_system_without_these_files_uses_its_load(tmp_path: Path) -> None:
    (value,) = CpuUsage(tmp_path).sample(0)
    assert 0 <= value <= 100

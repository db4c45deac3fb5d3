"""The ledger knows from the workers' messages which worker holds a shard, and how long a shard was not read between two."""

from __future__ import annotations

from kinstream.cli.demo.fleet.ledger import Ledger, Passage
from kinstream.cli.demo.fleet.message import Assigned, Completed, Handled, Released
from kinstream.cli.demo.flights import Event


def handled(time: float, shard_id: str, text: str) -> Handled:
    return Handled(time, shard_id, "key", text.encode())


def event(text: str) -> Event:
    return Event("key", text.encode())


def read(ledger: Ledger, worker: str, shard_id: str, *records: tuple[float, str]) -> None:
    """Let a worker get a shard when it handles the first of some records."""
    ledger.receive(worker, Assigned(records[0][0], shard_id))
    for time, text in records:
        ledger.receive(worker, handled(time, shard_id, text))


def test_a_shard_has_the_worker_that_was_assigned_it_last() -> None:
    ledger = Ledger()
    ledger.receive("a", Assigned(1, "0"))
    ledger.receive("a", Assigned(1, "1"))
    assert ledger.holders() == {"a": ["0", "1"]}
    ledger.receive("b", Assigned(3, "1"))
    assert ledger.holders() == {"a": ["0"], "b": ["1"]}


def test_a_late_message_about_an_earlier_assignment_changes_no_holder() -> None:
    ledger = Ledger()
    ledger.receive("b", Assigned(3, "1"))
    ledger.receive("a", Assigned(1, "1"))
    assert ledger.holders() == {"b": ["1"]}


def test_a_released_or_completed_shard_has_no_holder() -> None:
    ledger = Ledger()
    for shard_id in ("0", "1", "2"):
        ledger.receive("a", Assigned(1, shard_id))
    ledger.receive("a", Released(2, "0"))
    ledger.receive("a", Completed(2, "1"))
    assert ledger.holders() == {"a": ["2"]}
    assert ledger.completed == {"1"}


def test_a_gap_is_the_time_between_the_last_record_of_one_worker_and_the_first_of_the_next() -> None:
    ledger = Ledger()
    read(ledger, "a", "0", (1, "x"), (2, "y"))
    ledger.receive("a", Released(2.25, "0"))
    ledger.receive("b", Assigned(2.5, "0"))
    assert ledger.receive("b", handled(3.5, "0", "z")) == [Passage("0", "a", "b", 1.5, killed=False)]
    assert ledger.receive("b", handled(4, "0", "zz")) == []
    assert ledger.passages == [Passage("0", "a", "b", 1.5, killed=False)]


def test_a_gap_is_known_only_after_all_messages_of_the_first_worker() -> None:
    ledger = Ledger()
    read(ledger, "a", "0", (1, "x"))
    ledger.receive("b", Assigned(2.5, "0"))
    assert ledger.receive("b", handled(3, "0", "z")) == []
    assert ledger.receive("a", handled(2, "0", "y")) == []
    assert ledger.receive("a", Released(2, "0")) == [Passage("0", "a", "b", 1.0, killed=False)]


def test_the_gap_after_a_kill_counts_from_the_kill() -> None:
    ledger = Ledger()
    read(ledger, "a", "0", (1, "x"))
    ledger.kill("a", 4)
    assert ledger.end("a") == []
    ledger.receive("b", Assigned(4.5, "0"))
    assert ledger.receive("b", handled(5, "0", "y")) == [Passage("0", "a", "b", 1.0, killed=True)]


def test_a_shard_that_was_released_before_the_kill_was_handed_off() -> None:
    ledger = Ledger()
    read(ledger, "a", "0", (1, "x"))
    ledger.receive("a", Released(2, "0"))
    ledger.kill("a", 4)
    ledger.end("a")
    ledger.receive("b", Assigned(2, "0"))
    assert ledger.receive("b", handled(3, "0", "y")) == [Passage("0", "a", "b", 2.0, killed=False)]


def test_a_worker_that_held_a_shard_for_a_moment_and_read_nothing_is_no_part_of_a_gap() -> None:
    ledger = Ledger()
    read(ledger, "a", "0", (1, "x"))
    ledger.receive("a", Released(2, "0"))
    ledger.receive("b", Assigned(2, "0"))
    ledger.receive("b", Released(3, "0"))
    ledger.receive("c", Assigned(3, "0"))
    assert ledger.receive("c", handled(4, "0", "y")) == [Passage("0", "a", "c", 3.0, killed=False)]


def test_records_of_all_workers_are_in_the_order_in_which_they_were_handled() -> None:
    ledger = Ledger()
    read(ledger, "b", "0", (2, "y"), (2, "z"))
    read(ledger, "a", "0", (1, "x"), (1.5, "y"))
    assert ledger.records() == [event("x"), event("y"), event("y"), event("z")]
    assert ledger.by_shard() == {"0": [("a", event("x")), ("a", event("y")), ("b", event("y")), ("b", event("z"))]}
    assert (ledger.distinct, ledger.handled) == (3, {"a": 2, "b": 2})
    assert ledger.records_of("a") == {event("x"), event("y")}


def test_a_worker_reads_the_shards_that_it_holds_and_has_handled_records_of() -> None:
    ledger = Ledger()
    read(ledger, "a", "0", (1, "x"))
    read(ledger, "a", "1", (3, "y"))
    ledger.receive("a", Assigned(1, "2"))
    ledger.receive("a", Released(4, "1"))
    assert ledger.read_by("a") == {"0"}
    assert ledger.first_record("a") == 1
    assert ledger.first_record("b") is None


def test_a_message_about_a_shard_that_was_never_assigned_is_ignored() -> None:
    ledger = Ledger()
    assert ledger.receive("a", Released(1, "0")) == []
    assert ledger.holders() == {}

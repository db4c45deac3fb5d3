"""Refusals: one record, or all of them."""

from __future__ import annotations

from kinstream.produce.refusal import SAMPLES, Refusal


def test_as_many_refused_alike_as_there_are_samples_tell_of_all() -> None:
    of = Refusal(500)
    for _ in range(SAMPLES):
        assert not of.of_all("no")
        of.of_one("no")
    assert of.of_all("no")
    assert not of.of_all("something else")
    assert str(of).startswith("4 of 500 ")


def test_one_that_was_written_or_refused_otherwise_tells_that_they_differ() -> None:
    written, differs = Refusal(500), Refusal(500)
    written.mixed = True
    for n in range(2 * SAMPLES):
        written.of_one("no")
        differs.of_one("no" if n else "too large")
    assert not written.of_all("no")
    assert not differs.of_all("no")

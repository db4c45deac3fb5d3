import pytest

from kinstream.local.state import sequence


def test_numbers_have_56_digits_from_the_first_second_to_the_year_4147() -> None:
    for origin in (0, 1_700_000_000, 2**36 - 1):
        for place in (0, 1, 2**40):
            assert len(str(sequence.number(origin, place, origin, 0))) == 56


def test_parsing_returns_the_parts_of_a_number() -> None:
    text = str(sequence.number(1_700_000_000, 12345, 1_700_000_777, 42))
    assert sequence.parse(text) == sequence.Parsed(1_700_000_000, 12345, 1_700_000_777, 42)


def test_layout_matches_a_number_of_kinesis() -> None:
    # From the sample event in the AWS Lambda developer guide, "Using AWS Lambda with Amazon Kinesis".
    given = f"{49590338271490256608559692538361571095921575989136588898:x}"
    ours = f"{sequence.number(0x5BF4E5C2, 0x67648A17, 0x5C181EEA, 6):x}"
    assert ours[:10] == given[:10]
    assert ours[11:] == given[11:]  # the digit between is 6 in theirs, 0 in ours


def test_numbers_are_ordered_by_creation_of_the_shard_then_by_position() -> None:
    early = sequence.number(100, 1, 999, 7)
    assert early < sequence.number(100, 2, 100, 0) < sequence.number(101, 0, 101, 0)


def test_step_is_the_difference_of_successive_positions() -> None:
    assert sequence.number(5, 10, 6, 3) + sequence.STEP == sequence.number(5, 11, 6, 3)


@pytest.mark.parametrize("text", ["", "0", "007", "-1", "1e5", "5", "9" * 56, "9" * 130, "4" * 56, "٤" * 56])
def test_number_that_no_shard_issued_is_invalid(text: str) -> None:
    assert sequence.parse(text) is None

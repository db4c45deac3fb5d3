"""Tracebacks of handlers in the log: with their texts, unless these quote a record's data."""

from __future__ import annotations

import logging

import pytest

from kinstream.consume.withhold import COMPARED_BYTES, exception_info, quotes

DATA = b'{"customer": "Erika Mustermann", "iban": "DE02120300000000202051"}'


def shown(error: BaseException) -> str:
    """Return the text of an exception in a log."""
    return logging.Formatter().formatException(exception_info(error, [DATA]))


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return an exception with a traceback."""
    with pytest.raises(type(error)):
        handler(error, cause)
    return error


def handler(error: BaseException, cause: BaseException | None) -> None:
    raise error from cause


def test_text_without_a_quotation_is_shown_with_the_traceback() -> None:
    text = shown(raised(ConnectionError("the database at db:5432 refused the connection")))
    assert "db:5432 refused" in text
    assert "in handler" in text


@pytest.mark.parametrize(
    "text",
    [
        repr(DATA),
        DATA.decode(),
        "cannot handle Erika Mustermann of Berlin",
        "unexpected value: input_value='DE02120300000000202051'",
    ],
)
def test_text_that_quotes_the_data_is_withheld_and_the_traceback_stays(text: str) -> None:
    withheld = shown(raised(ValueError(text)))
    assert "Mustermann" not in withheld
    assert "DE0212" not in withheld
    assert "ValueError" in withheld
    assert "in handler" in withheld


def test_quotation_in_a_cause_is_withheld() -> None:
    error = raised(RuntimeError("no"), raised(ValueError(DATA)))
    assert "Mustermann" not in shown(error)


def test_quotation_in_a_note_or_a_group_is_withheld() -> None:
    noted = ValueError("no")
    noted.add_note(DATA.decode())
    assert "Mustermann" not in shown(raised(noted))
    assert "Mustermann" not in shown(raised(ExceptionGroup("several", [ValueError(DATA)])))


def test_short_data_is_found_as_a_whole() -> None:
    assert quotes("ValueError: 4711 is no order", [b"4711\n"])
    assert not quotes("ValueError: no such order", [b"4711\n"])


def test_data_of_any_record_of_a_batch_is_withheld() -> None:
    assert quotes(f"at {DATA.decode()}", [b"first of all", DATA])


def test_text_is_withheld_if_there_is_more_data_than_is_compared() -> None:
    assert quotes("no", [b"x" * (COMPARED_BYTES + 1)])


def test_empty_data_is_never_quoted() -> None:
    assert not quotes("no", [b""])

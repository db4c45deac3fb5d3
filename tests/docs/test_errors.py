"""docs/errors.md has every error class, error type and error code, with its cause and its remedy."""

from __future__ import annotations

import re
from pathlib import Path

import botocore.session
import pytest

import kinstream
from kinstream import ErrorType, KinesisError, errors

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()


def rows(title: str) -> dict[str, list[str]]:
    """Return the cells after the first one for each name in the first cell of the table in a section."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:3] == "| `"
    ]
    return {name: cells for first, *cells in lines for name in re.findall(r"`(\w+)`", first)}


def codes_of_kinesis() -> set[str]:
    """Return the error codes in the service model of Kinesis."""
    model = botocore.session.get_session().get_service_model("kinesis")
    shapes = (shape for name in model.operation_names for shape in model.operation_model(name).error_shapes)
    return {shape.name for shape in shapes}


CODES = sorted(
    codes_of_kinesis()
    | set(errors._CLASSES)
    | errors.THROTTLE_CODES
    | errors.TRANSIENT_CODES
    | errors.CONFLICT_CODES
    | errors.CLOCK_SKEW_CODES
    | errors.EXPIRED_CREDENTIALS_CODES
    | set(errors.STREAM_ADVICE)
    | set(errors.TABLE_ADVICE)
)


def test_page_has_every_error_class() -> None:
    classes = {
        name
        for name in kinstream.__all__
        if isinstance(error := getattr(kinstream, name), type) and issubclass(error, KinesisError)
    }
    assert set(rows("Classes")) == classes


def test_page_has_every_error_type() -> None:
    assert set(rows("Error types")) == {error_type.name for error_type in ErrorType}


def test_each_row_has_a_cause_and_a_remedy() -> None:
    for title, columns in [("Error types", 2), ("Classes", 2), ("Codes of AWS", 3)]:
        for name, cells in rows(title).items():
            assert len(cells) == columns, name
            assert all(cells), name


@pytest.mark.parametrize("code", CODES)
def test_code_has_the_class_that_the_page_says(code: str) -> None:
    said = rows("Codes of AWS")[code][0]
    raised = type(errors.service_error("PutRecords", 400, code, "")).__name__
    status = "InternalFailure" in code
    assert said == (
        "`ServiceUnavailable` with HTTP 5xx" if status else said if "by the HTTP" in said else f"`{raised}`"
    )
    if status:
        assert type(errors.service_error("PutRecords", 500, code, "")).__name__ == "ServiceUnavailable"


def test_attributes_on_the_page_exist() -> None:
    names = set(re.findall(r"`(\w+)`", PAGE.partition("## Attributes")[2].partition("## ")[0]))
    attributes = names - {"ServiceError", "True", "None"}
    error = errors.service_error("PutRecords", 400, "Throttling", "")
    assert len(attributes) > 8
    assert [name for name in attributes if not hasattr(error, name)] == []

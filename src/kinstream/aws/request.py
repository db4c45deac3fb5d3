"""A request of any operation: the encoded parameters and the parser of the response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_READS = ("Get", "List", "Describe", "Subscribe", "Query", "Scan")
_WRITES = frozenset({"PutRecord", "PutRecords", "PutItem", "UpdateItem", "DeleteItem", "CreateTable", "DeleteTable"})


class Malformed(ValueError):
    """A response that decodes but lacks a required value. The message quotes no part of the response."""


@dataclass(frozen=True, slots=True, repr=False)
class Request(Generic[T]):
    """A request, ready to be signed.

    Attributes:
        operation: Operation such as "PutRecords" or "UpdateItem".
        body: The encoded parameters.
        parse: Returns the result for the body of a 200 response. Raises ValueError if the body is not valid.
        region: Region of the ARN in the parameters, which must be the client's. None: no ARN.
        account: Account of the ARN in the parameters, which has its own endpoints. None: no ARN.
        counted: Sets in a result the number of attempts, and whether an earlier one may have been written.
        content_type: Format of the body. None: the client's format.
        table: Table of a DynamoDB request, for error texts. None: a Kinesis request.
        expected: Code of an error response that is a result rather than an error, and the parser of its body.
    """

    operation: str
    body: bytes
    parse: Callable[[bytes], T]
    region: str | None = None
    account: str | None = None
    counted: Callable[[T, int, bool], T] | None = None
    content_type: str | None = None
    table: str | None = None
    expected: tuple[str, Callable[[bytes], T]] | None = None

    @property
    def title(self) -> str:
        """The operation in error texts, such as "PutRecords" or "DynamoDB GetItem of table 'orders'"."""
        return self.operation if self.table is None else f"DynamoDB {self.operation} of table {self.table!r}"

    @property
    def reads(self) -> bool:
        """True if the operation changes nothing."""
        return self.operation.startswith(_READS)

    @property
    def writes(self) -> bool:
        """True if records, items or a table may have been written when the outcome is unknown."""
        return self.operation in _WRITES

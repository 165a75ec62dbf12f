"""What DynamoDB answers to a request that it cannot accept.

It checks values in one of two layers, which say some things in other words: PutItem, UpdateItem, DeleteItem, GetItem,
BatchGetItem and Query have the newer one; BatchWriteItem, Scan, transactions and statements the older one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from owsgit.aws.api import ServiceError

INVALID = "One or more parameter values were invalid: "
NOT_VALID = "One or more parameter values are not valid. "
DETECTED = "1 validation error detected: "


class ValidationError(ServiceError):
    """AWS's ValidationException (400), with the words of DynamoDB. `older`: those of the older layer."""

    def __init__(self, message: str, older: str | None = None) -> None:
        super().__init__("ValidationException", message)
        self.older = message if older is None else older


class EmptyKeyError(ValidationError):
    """A key with an empty value: a transaction is refused as a whole for it, before it is begun."""


@contextmanager
def detected() -> Iterator[None]:
    """What is wrong with a request by itself, as PutItem, UpdateItem and DeleteItem say it."""
    try:
        yield
    except ValidationError as error:
        raise ValidationError(f"{DETECTED}{error.message}") from None


@contextmanager
def older() -> Iterator[None]:
    """What is wrong with a request, in the words of the older layer."""
    try:
        yield
    except ValidationError as error:
        raise ValidationError(error.older) from None

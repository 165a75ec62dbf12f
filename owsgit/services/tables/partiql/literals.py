"""Values that are written in a statement: text, numbers, maps, lists and sets."""

from collections.abc import Iterable

from owsgit.services.tables import numbers
from owsgit.services.tables.errors import INVALID, ValidationError, older
from owsgit.services.tables.partiql.tokens import malformed
from owsgit.services.tables.values import DEPTH_MAX, AttributeValue, check_value

EXPONENT_MAX, SCALE_MAX = 2**31 - 1, 2**31 - 1
"""Of a number as it is written: what Java's BigDecimal, which DynamoDB reads numbers with, can hold."""

_EXPONENT_DIGITS_MAX = 10
_TOO_DEEP = "Nesting Levels have exceeded supported limits under "
_MIXED = "Unsupported data type in Bag. DynamoDB only supports either numbers or strings in bags"


def number(text: str, where: str) -> AttributeValue:
    """`where`: the path to it in the value, which begins with root."""
    mantissa, _, exponent = text.upper().partition("E")
    if len(exponent.lstrip("+-0")) > _EXPONENT_DIGITS_MAX:
        raise malformed()
    raised = int(exponent or 0)
    scale = len(mantissa.partition(".")[2]) - raised
    if abs(raised) > EXPONENT_MAX or abs(scale) > SCALE_MAX:
        raise malformed()
    try:
        return {"N": numbers.normal(text)}
    except ValidationError as error:
        raise ValidationError(f"{error.message} under {where}") from None


def bag(elements: list[AttributeValue], texts: Iterable[str], where: str) -> AttributeValue:
    """A set of strings or numbers. `texts`: the elements as they are written."""
    if not elements:
        raise ValidationError("Empty bags are not supported")
    kinds = {kind for element in elements for kind in element}
    if len(kinds) > 1 or not kinds <= {"S", "N"}:
        raise ValidationError(_MIXED)
    [kind] = kinds
    contents = [element[kind] for element in elements]
    if kind == "N" and len(set(contents)) < len(contents):
        raise ValidationError(f"{INVALID}Input collection [{', '.join(texts)}] contains duplicates! under {where}")
    with older():
        return check_value({f"{kind}S": contents})


def check_depth(depth: int, where: str) -> None:
    """`depth`: the level that a value is on; that of an attribute is 1."""
    if depth > DEPTH_MAX:
        raise ValidationError(f"{_TOO_DEEP}{where}")

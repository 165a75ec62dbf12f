"""DynamoDB's numbers: decimal, up to 38 significant digits, from 1E-130 to 9.99…E+125 on both sides of zero.

A number is text, as on the wire. Its normal form is the one that DynamoDB shows: no exponent, no sign of plus, no zeros
that say nothing ("1e2" is "100", "-0.50" is "-0.5"); two normal numbers are equal if their texts are.
Errors: ValidationError, in DynamoDB's words. Source:
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
"""

import decimal
import re
from decimal import Decimal
from typing import NamedTuple

from owsgit.services.tables.errors import ValidationError

DIGITS_MAX = 38
EXPONENT_MAX = 125
EXPONENT_MIN = -130

_NOT_A_NUMBER = "The parameter cannot be converted to a numeric value"
_TOO_PRECISE = "Attempting to store more than 38 significant digits in a Number"
_OVERFLOW = "Number overflow. Attempting to store a number with magnitude larger than supported range"
_UNDERFLOW = "Number underflow. Attempting to store a number with magnitude smaller than supported range"

_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")
_EXPONENT_DIGITS_MAX = 18
"""Of what is written after the E: an exponent of DynamoDB is a number of 64 bits."""

_EXACT = decimal.Context(
    prec=DIGITS_MAX + EXPONENT_MAX - EXPONENT_MIN + 2, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN
)
"""Sums of any two numbers are exact in it."""


class Parts(NamedTuple):
    """0.`digits` × 10^(`exponent` + 1). The digits neither begin nor end with a zero; zero has none."""

    negative: bool
    digits: str
    exponent: int


def parts(text: str) -> Parts:
    """Of a number within the limits."""
    if not text:
        raise ValidationError(f"{_NOT_A_NUMBER}: ", older=_NOT_A_NUMBER)
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]) or len((match[4] or "").lstrip("+-0")) > _EXPONENT_DIGITS_MAX:
        raise ValidationError(f"{_NOT_A_NUMBER}: {text}")
    whole, fraction = match[2].lstrip("0"), match[3] or ""
    digits = (whole + fraction).lstrip("0")
    exponent = len(whole) - 1 if whole else len(digits) - len(fraction) - 1
    digits = digits.rstrip("0")
    if not digits:
        return Parts(False, "", 0)
    found = Parts(match[1] == "-", digits, exponent + int(match[4] or 0))
    _check(found)
    return found


def _check(number: Parts) -> None:
    if number.exponent > EXPONENT_MAX:
        raise ValidationError(_OVERFLOW)
    if number.exponent < EXPONENT_MIN:
        raise ValidationError(_UNDERFLOW)
    if len(number.digits) > DIGITS_MAX:
        raise ValidationError(_TOO_PRECISE)


def _is_plain(text: str) -> bool:
    """Whether it is a natural number in normal form: what most numbers are."""
    return len(text) <= DIGITS_MAX and text.isdecimal() and text.isascii() and (text[0] != "0" or text == "0")


def normal(text: str) -> str:
    """The same object if it is in normal form already."""
    if _is_plain(text):
        return text
    found = _written(parts(text))
    return text if found == text else found


def _written(number: Parts) -> str:
    negative, digits, exponent = number
    if not digits:
        return "0"
    sign = "-" if negative else ""
    point = exponent + 1
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if len(digits) <= point:
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    return f"{sign}{digits[:point]}.{digits[point:]}"


def size(text: str) -> int:
    """Bytes of a number in normal form, as DynamoDB counts them.

    One, one for a sign of minus, and one for two significant digits, those before and after the point by themselves:
    that is what DynamoDB was measured to do, where its documentation is silent on the point. Zero has one.
    """
    if text.isdecimal():  # zero among them
        return 1 + (len(text.rstrip("0")) + 1) // 2
    sign = text[0] == "-"
    whole, _, fraction = text[sign:].partition(".")
    if not fraction:
        whole = whole.rstrip("0")
    elif whole == "0":
        whole, fraction = "", fraction.lstrip("0")
    return 1 + sign + (len(whole) + 1) // 2 + (len(fraction) + 1) // 2


def add(a: str, b: str) -> str:
    if _is_plain(a) and _is_plain(b):
        return normal(str(int(a) + int(b)))
    return normal(str(_EXACT.add(Decimal(normal(a)), Decimal(normal(b)))))


def subtract(a: str, b: str) -> str:
    if _is_plain(a) and _is_plain(b):
        return normal(str(int(a) - int(b)))
    return normal(str(_EXACT.subtract(Decimal(normal(a)), Decimal(normal(b)))))


def compare(a: str, b: str) -> int:
    """-1, 0 or 1. Both in normal form."""
    if a == b:
        return 0
    less = int(a) < int(b) if _is_plain(a) and _is_plain(b) else Decimal(a) < Decimal(b)
    return -1 if less else 1


def encode(text: str) -> bytes:
    """Bytes in the order of the numbers: a sign, the exponent, and the digits as decimals of four bits.

    Of a negative number exponent and digits are complemented, and a nibble above all digits ends them: one that goes
    on with more digits is further from zero.
    """
    if _is_plain(text) and text != "0":
        negative, digits, exponent = False, text.rstrip("0"), len(text) - 1
    else:
        negative, digits, exponent = parts(text)
    if not digits:
        return b"\x01"
    if negative:
        digits = digits.translate(_COMPLEMENT) + "a"
    content = bytes.fromhex(digits + "0" if len(digits) % 2 else digits)
    return bytes((0, EXPONENT_MAX - exponent) if negative else (2, exponent - EXPONENT_MIN)) + content


_COMPLEMENT = str.maketrans("0123456789", "9876543210")

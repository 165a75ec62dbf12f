"""DynamoDB's numbers, against decimal.Decimal."""

import decimal
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from owsgit.services.tables import numbers
from owsgit.services.tables.errors import ValidationError

EXACT = decimal.Context(prec=400)
NOT_A_NUMBER = "The parameter cannot be converted to a numeric value"
TOO_PRECISE = "Attempting to store more than 38 significant digits in a Number"
OVERFLOW = "Number overflow. Attempting to store a number with magnitude larger than supported range"
UNDERFLOW = "Number underflow. Attempting to store a number with magnitude smaller than supported range"


@st.composite
def decimals(draw: st.DrawFn) -> Decimal:
    """All that DynamoDB can store, and often neighbours."""
    digits = draw(st.integers(1, 38).flatmap(lambda length: st.integers(0, 10**length - 1)))
    exponent = draw(st.integers(-130, 125)) - (len(str(digits)) - 1)
    found = Decimal(digits).scaleb(exponent, EXACT)
    return found.copy_negate() if draw(st.booleans()) else found  # the operator rounds


def in_range(number: Decimal) -> bool:
    number = number.normalize(EXACT)
    return not number or (-130 <= number.adjusted() <= 125 and len(number.as_tuple().digits) <= 38)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("0", "0"), ("-0", "0"), ("0.000", "0"), ("0e999", "0"), ("00", "0"), ("1", "1"), ("+1", "1"), ("-1", "-1"),
        ("007", "7"), ("1.0", "1"), ("1.50", "1.5"), ("-0.50", "-0.5"), (".5", "0.5"), ("5.", "5"), ("1e2", "100"),
        ("1E+2", "100"), ("12.5e1", "125"), ("12.5e-3", "0.0125"), ("100", "100"), ("0.1e1", "1"), ("123e-2", "1.23"),
        ("1e125", "1" + "0" * 125), ("1e-130", "0." + "0" * 129 + "1"), ("9" * 38, "9" * 38),
        ("9" * 38 + "0" * 88, "9" * 38 + "0" * 88), ("1" + "0" * 38, "1" + "0" * 38), ("0." + "0" * 200 + "1e190", "0." + "0" * 10 + "1"),
    ],
    ids=str,
)  # fmt: skip
def test_normal(text: str, normal: str) -> None:
    assert numbers.normal(text) == normal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"{NOT_A_NUMBER}: "),
        *((text, f"{NOT_A_NUMBER}: {text}") for text in [
            "x", "-", "+", ".", "e5", "1e", "1e+", "--1", "1 ", " 1", "1\n", "1_000", "0x10", "NaN", "Infinity", "1,5",
            "1.2.3", "١", "²", "1e9999999999999999999", "-.", "1f",
        ]),
        ("1" * 39, TOO_PRECISE), ("-1." + "1" * 38, TOO_PRECISE), ("1" + "0" * 40 + "1", TOO_PRECISE),
        ("1e126", OVERFLOW), ("-1e126", OVERFLOW), ("1" + "0" * 126, OVERFLOW), ("1e9999999999", OVERFLOW), ("-1e99999999999", OVERFLOW), ("1e2147483648", OVERFLOW), ("12" * 99, OVERFLOW),
        ("1e-131", UNDERFLOW), ("-1e-131", UNDERFLOW), ("0." + "0" * 130 + "1", UNDERFLOW), ("1e-999999", UNDERFLOW), ("1e-99999999999", UNDERFLOW),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_number_is_refused_in_the_words_of_dynamodb(text: str, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        numbers.normal(text)
    assert (error.value.code, error.value.message, error.value.status) == ("ValidationException", message, 400)


def test_a_very_long_number_is_read_in_linear_time() -> None:
    assert numbers.normal("0" * 400_000 + "1." + "0" * 400_000) == "1"


@given(st.text("0123456789+-.eE", max_size=12))
@example("1e0000000000000005")
@example("-.5e-1")
def test_numbers_are_written_as_everywhere(text: str) -> None:
    try:
        wanted = Decimal(text)
    except decimal.InvalidOperation:
        with pytest.raises(ValidationError, match=NOT_A_NUMBER):
            numbers.normal(text)
        return
    if not wanted or (-130 <= wanted.adjusted() <= 125):
        assert Decimal(numbers.normal(text)) == wanted
    else:
        with pytest.raises(ValidationError):
            numbers.normal(text)


@given(decimals(), st.sampled_from(["{}", "{:f}", "{:e}", "{:E}"]))
def test_normal_keeps_the_value_and_is_idempotent(number: Decimal, form: str) -> None:
    text = form.format(number)
    normal = numbers.normal(text)
    assert Decimal(normal) == number
    assert numbers.normal(normal) is not None
    assert numbers.normal(normal) == normal
    assert normal == f"{number.normalize(EXACT):f}".replace("-0", "0", not number)


@given(decimals(), decimals())
@example(Decimal("-1"), Decimal("-1.0001"))
@example(Decimal("-1.01"), Decimal("-1.0001"))
@example(Decimal("-12"), Decimal("-120"))
@example(Decimal("0"), Decimal("-1e-130"))
@example(Decimal("9e125"), Decimal("1e-130"))
def test_the_order_of_encoded_numbers_is_that_of_the_numbers(a: Decimal, b: Decimal) -> None:
    left, right = numbers.encode(f"{a:f}"), numbers.encode(f"{b:f}")
    assert (left < right, left == right) == (a < b, a == b)
    assert numbers.compare(numbers.normal(str(a)), numbers.normal(str(b))) == (a > b) - (a < b)


@given(decimals(), st.integers(0, 37), st.sampled_from([-1, 1]))
def test_the_order_holds_between_neighbours(a: Decimal, place: int, step: int) -> None:
    b = EXACT.add(a, Decimal(step).scaleb(a.adjusted() - place, EXACT))
    if in_range(a) and in_range(b):
        assert (numbers.encode(f"{a:f}") < numbers.encode(f"{b:f}")) == (a < b)


@given(decimals(), decimals())
@example(Decimal("9e125"), Decimal("9e125"))
@example(Decimal("1e125"), Decimal("1e-130"))
@example(Decimal("9" * 38), Decimal(1))
@example(Decimal(5), Decimal(-5))
def test_sums_and_differences_are_exact_or_refused(a: Decimal, b: Decimal) -> None:
    for ours, theirs in ((numbers.add, EXACT.add(a, b)), (numbers.subtract, EXACT.subtract(a, b))):
        if in_range(theirs):
            assert ours(str(a), str(b)) == numbers.normal(str(theirs))
        else:
            with pytest.raises(ValidationError) as error:
                ours(str(a), str(b))
            assert error.value.message in (TOO_PRECISE, OVERFLOW, UNDERFLOW)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 1), ("-0", 1), ("1", 2), ("12", 2), ("123", 3), ("1234", 3), ("9" * 38, 20), ("0042", 2), ("100", 2), ("1010", 3),
        ("0.0000001", 2), ("1E125", 2), ("1E-100", 2), ("1.5", 3), ("15", 2), ("1.200", 3), ("1.234", 4), ("3.14159", 5),
        ("123456", 4), ("100.5", 4), ("0.15", 2), ("-42", 3), ("-0.5", 3),
    ],
    ids=str,
)  # fmt: skip
def test_size_is_what_dynamodb_was_measured_to_count(text: str, size: int) -> None:
    assert numbers.size(numbers.normal(text)) == size

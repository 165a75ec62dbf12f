"""What DynamoDB says of expressions that are wrong. The messages were observed at DynamoDB, and are kept word by word."""

from collections.abc import Callable, Mapping

import pytest

from owsgit.services.tables.errors import ValidationError, older
from owsgit.services.tables.expressions import Placeholders, condition, keycondition, projection, update
from owsgit.services.tables.expressions.reserved import WORDS
from owsgit.services.tables.keys import Attribute, KeySchema
from owsgit.services.tables.values import AttributeValue

Names = Mapping[str, str]
Values = Mapping[str, AttributeValue]

ONE: Values = {":a": {"N": "1"}}
TEXT: Values = {":a": {"S": "x"}}
REDUNDANT = "The expression has redundant parentheses;"
SYNTAX = "Syntax error; token: "
UNDEFINED_NAME = "An expression attribute name used in the document path is not defined; attribute name: "
UNDEFINED_VALUE = "An expression attribute value used in expression is not defined; attribute value: "
MISUSED = "The function is not allowed to be used this way in an expression; function: "
COUNT = "Incorrect number of operands for operator or function; operator or function: "
TYPE = "Incorrect operand type for operator or function; operator or function: "
LONG_TYPE = "Incorrect operand type for operator or function; operator: "
NEEDS_PATH = "Operator or function requires a document path; operator or function: "
DISTINCT = "The first operand must be distinct from the remaining operands for this operator or function; operator: "
REWRITE = "must remove or rewrite one of these paths; path one: "
OVERLAP = f"Two document paths overlap with each other; {REWRITE}"
CONFLICT = f"Two document paths conflict with each other; {REWRITE}"
RESERVED = "Attribute name is a reserved keyword; reserved keyword: "


def said(parse: Callable[[], object]) -> str:
    with pytest.raises(ValidationError) as raised:
        parse()
    assert raised.value.code == "ValidationException"
    return raised.value.message


CONDITIONS: list[tuple[str, Values | None, str]] = [
    ("", None, "The expression can not be empty;"),
    ("foo", None, f'{SYNTAX}"<EOF>", near: "foo"'),
    ("  ", None, f'{SYNTAX}"<EOF>", near: ""'),
    ("!!!", None, f'{SYNTAX}"!", near: "!!"'),
    ("a = = :a", ONE, f'{SYNTAX}"=", near: "= = :a"'),
    ("a == :a", ONE, f'{SYNTAX}"=", near: "== :a"'),
    ("course-id = :a", ONE, f'{SYNTAX}"-", near: "course-id"'),
    ("a = :a AND __type = :a", ONE, f'{SYNTAX}"_", near: "AND __"'),
    ("attribute_not_exists(", None, f'{SYNTAX}"<EOF>", near: "("'),
    ("contains (a, :a", ONE, f'{SYNTAX}"<EOF>", near: ":a"'),
    ("a = :a AND begins_with b, :a", ONE, f'{SYNTAX}"b", near: "begins_with b,"'),
    ("attribute_exists(a[-1])", None, f'{SYNTAX}"-", near: "[-1"'),
    ("attribute_exists(a[].b)", None, f'{SYNTAX}"]", near: "[]."'),
    ("attribute_exists(([1]", None, f'{SYNTAX}"[", near: "([1"'),
    ("e > now()", None, f'{SYNTAX}")", near: "()"'),
    ("(size(a))[0] > b", None, f'{SYNTAX}"[", near: ")[0"'),
    ("a = :a)", ONE, f'{SYNTAX}")", near: ":a)"'),
    ("a = 1", None, f'{SYNTAX}"1", near: "= 1"'),
    ("a = 'x'", None, f'{SYNTAX}"\'", near: "= \'x"'),
    ("a BETWEEN :a OR :a", ONE, f'{SYNTAX}"OR", near: ":a OR :a"'),
    ("a IN ()", None, f'{SYNTAX}")", near: "()"'),
    ("a AND b", None, f'{SYNTAX}"AND", near: "a AND b"'),
    ("((a = :a))", ONE, REDUNDANT),
    ("((a)) = :a", ONE, REDUNDANT),
    ("b = :a AND ((a = :a))", ONE, REDUNDANT),
    ("dog(((a)))", None, REDUNDANT),
    ("dog(a)", None, "Invalid function name; function: dog"),
    ("Size(a) > b", None, "Invalid function name; function: Size"),
    (
        "if_not_exists(a, :a)",
        ONE,
        "The function is not allowed in a condition expression; function: if_not_exists",
    ),
    ("a=a and attribute_exists((views), (#a)) > b", None, f"{MISUSED}attribute_exists"),
    ("contains(:things, c) > b", None, f"{MISUSED}contains"),
    ("size(contains(a, b)) > a", None, f"{MISUSED}contains"),
    ("size(things)", None, f"{MISUSED}size"),
    ("NOT size(things)", None, f"{MISUSED}size"),
    ("a between b and attribute_exists(things)", None, f"{MISUSED}attribute_exists"),
    ("a in (b, attribute_exists(things))", None, f"{MISUSED}attribute_exists"),
    ("attribute_exists(views, #a)", None, f"{RESERVED}views"),
    (":a < abOrT", None, f"{RESERVED}abOrT"),
    ("attribute_exists(a.b.Name)", None, f"{RESERVED}Name"),
    ("attribute_exists(#P.R, :a) and a=a", None, f"{UNDEFINED_NAME}#P"),
    ("begins_with(P.#R)", None, f"{UNDEFINED_NAME}#R"),
    ("(a)between(b.c[45].#d)and(:a)", None, f"{UNDEFINED_NAME}#d"),
    ("begins_with(:hello, #a, #b)", None, f"{UNDEFINED_VALUE}:hello"),
    (":_ > a", None, f"{UNDEFINED_VALUE}:_"),
    ("attribute_exists(things, a) and a=a", None, f"{COUNT}attribute_exists, number of operands: 2"),
    ("attribute_type(things)", None, f"{COUNT}attribute_type, number of operands: 1"),
    ("begins_with(things, size(a), b)", None, f"{COUNT}begins_with, number of operands: 3"),
    ("size(things, a) > b", None, f"{COUNT}size, number of operands: 2"),
    ("attribute_type(a, size(b)) and a=a", None, f"{TYPE}attribute_type, operand type: N"),
    ("attribute_type(a, b)", None, f"{TYPE}attribute_type, operand type: {{NS,SS,L,BS,N,M,B,BOOL,NULL,S}}"),
    ("attribute_type(a, :a)", {":a": {"SS": ["1"]}}, f"{TYPE}attribute_type, operand type: SS"),
    (
        "attribute_type(a, :a)",
        {":a": {"S": "1"}},
        "Invalid attribute type name found; type: 1, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}",
    ),
    ("begins_with(a, size(b))", None, f"{TYPE}begins_with, operand type: N"),
    ("begins_with(a, :a)", ONE, f"{TYPE}begins_with, operand type: N"),
    ("begins_with(:a, a)", {":a": {"M": {}}}, f"{TYPE}begins_with, operand type: M"),
    ("size(size(a)) > :a", ONE, f"{TYPE}size, operand type: N"),
    ("attribute_not_exists(size(:a))", ONE, f"{TYPE}size, operand type: N"),
    ("size(:a) > a", {":a": {"BOOL": True}}, f"{TYPE}size, operand type: BOOL"),
    ("a < :a", {":a": {"BOOL": True}}, f"{TYPE}<, operand type: BOOL"),
    ("a BETWEEN :a AND b", {":a": {"SS": ["1"]}}, f"{TYPE}BETWEEN, operand type: SS"),
    ("attribute_exists(:a) and a=a", TEXT, f"{NEEDS_PATH}attribute_exists"),
    ("attribute_not_exists(size(:a))", TEXT, f"{NEEDS_PATH}attribute_not_exists"),
    ("a = a AND b = :b", None, f"{DISTINCT}=, first operand: [a]"),
    ("((a=a) OR (a=a))", None, f"{DISTINCT}=, first operand: [a]"),
    ("contains(ab.bc[1].a, ab.bc[1].a)", None, f"{DISTINCT}contains, first operand: [ab, bc, [1], a]"),
    ("a IN (b, a)", None, f"{DISTINCT}IN, first operand: [a]"),
    (
        "a between :b and :a",
        {":a": {"S": "a"}, ":b": {"N": "1"}},
        "The BETWEEN operator requires same data type for lower and upper bounds; "
        "lower bound operand: AttributeValue: {N:1}, upper bound operand: AttributeValue: {S:a}",
    ),
    (
        "a between :b and :a",
        {":a": {"S": "a"}, ":b": {"S": "b"}},
        "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
        "lower bound operand: AttributeValue: {S:b}, upper bound operand: AttributeValue: {S:a}",
    ),
    (
        f"a IN ({', '.join([':a'] * 101)})",
        ONE,
        "The IN operator is provided with too many operands; number of operands: 101",
    ),
    (
        "attribute_exists(a[2147483648])",
        None,
        "List index is not within the allowable range; index: [2147483648]",
    ),
    (
        f"attribute_exists(a{'.b' * 32})",
        None,
        "The document path has too many nesting levels; nesting levels: 33",
    ),
    (
        " OR ".join(["a=:a"] * 151),
        ONE,
        "The expression contains too many operators; operator count: 301",
    ),
    (
        f"attribute_exists({'a' * 4080})",
        None,
        "Expression size has exceeded the maximum allowed size; expression size: 4098",
    ),
    (
        f"{'(NOT ' * 101}a = :a{')' * 101}",
        ONE,
        "The expression is nested too deeply; nesting levels: 101",
    ),
]


@pytest.mark.parametrize(("text", "values", "message"), CONDITIONS, ids=range(len(CONDITIONS)))
@pytest.mark.parametrize("what", ["ConditionExpression", "FilterExpression"])
def test_conditions(text: str, values: Values | None, message: str, what: str) -> None:
    assert said(lambda: condition.parse(text, Placeholders(None, values), what)) == f"Invalid {what}: {message}"


UPDATES: list[tuple[str, Values | None, str]] = [
    ("", None, "The expression can not be empty;"),
    ("INVALID SYNTAX HERE", None, f'{SYNTAX}"INVALID", near: "INVALID SYNTAX"'),
    ("SET", None, f'{SYNTAX}"<EOF>", near: "SET"'),
    ("SET a = :a,", ONE, f'{SYNTAX}"<EOF>", near: ","'),
    ("SET _123 = :a", ONE, f'{SYNTAX}"_", near: "SET _123"'),
    ("SET path = VALUE 1", None, f'{SYNTAX}"1", near: "VALUE 1"'),
    ("ADD  SET #createdAt = :a", ONE, f'{SYNTAX}"SET", near: "ADD  SET #createdAt"'),
    ('SET a = {"NULL": true}', None, f'{SYNTAX}"{{", near: "= {{""'),
    *[
        (text, None, f'{SYNTAX}"{token}", near: "{near}"')
        for text, token, near in (
            ("set a", "<EOF>", "a"),
            ("add a", "<EOF>", "a"),
            ("set a=set", "set", "=set"),
            ("remove a = b", "=", "a = b"),
            ("delete a b", "b", "a b"),
            ("set :a = b", ":a", "set :a ="),
            ("set a = b / c", "/", "b / c"),
            ("set (a = (b + c))", "(", "set (a"),
            ("set a = (b.c).d + e", ".", ").d"),
            ("set a = b + c + d", "+", "c + d"),
            ("SET if_not_exist(a, b) = a", "(", "if_not_exist(a"),
        )
    ],
    (" set #c = :c set abOrt = true ", None, f"{RESERVED}abOrt"),
    (" remove Absolute ", None, f"{RESERVED}Absolute"),
    ("set #c = if_not_exist(:c) set c = d", None, "Invalid function name; function: if_not_exist"),
    ("set a = size(b)", None, "The function is not allowed in an update expression; function: size"),
    *[
        (text, None, f'The "{verb}" section can only be used once in an update expression;')
        for text, verb in (
            ("set a = #c set c = :d", "SET"),
            ("remove #d set a = b remove e", "REMOVE"),
            ("add #d :e set a = b add e :f", "ADD"),
            ("delete #d :e set a = b delete #e :f", "DELETE"),
        )
    ],
    ("SET #c = if_not_exists(:c)", None, f"{UNDEFINED_NAME}#c"),
    ("SET a = if_not_exists(:c)", None, f"{UNDEFINED_VALUE}:c"),
    ("SET a = :c, #x = :d", None, f"{UNDEFINED_NAME}#x"),
    ("set d[1] = a, d.b = a, c[1].a = a, c = if_not_exists(a)", None, f"{OVERLAP}[c, [1], a], path two: [c]"),
    ("set a = b remove a", None, f"{OVERLAP}[a], path two: [a]"),
    ("remove a.c set a[1] = b", None, f"{CONFLICT}[a, c], path two: [a, [1]]"),
    ("set b = list_append(:a, a), c = if_not_exists(a) add a.b :a", TEXT, f"{LONG_TYPE}ADD, operand type: STRING"),
    ("delete a.b :a", ONE, f"{LONG_TYPE}DELETE, operand type: NUMBER"),
    ("add a.b :a", {":a": {"BOOL": False}}, f"{LONG_TYPE}ADD, operand type: BOOLEAN"),
    ("add a.b :a", {":a": {"L": []}}, f"{LONG_TYPE}ADD, operand type: LIST"),
    ("set a = if_not_exists(c)", None, f"{COUNT}if_not_exists, number of operands: 1"),
    ("set a = list_append(c)", None, f"{COUNT}list_append, number of operands: 1"),
    ("set a = if_not_exists(:a, c)", ONE, f"{NEEDS_PATH}if_not_exists"),
    ("set a = if_not_exists(if_not_exists(a, b), c)", None, f"{NEEDS_PATH}if_not_exists"),
    ("set a = list_append(:a, a)", TEXT, f"{TYPE}list_append, operand type: S"),
    ("set a = list_append(a, :a)", {":a": {"NS": ["1"]}}, f"{TYPE}list_append, operand type: NS"),
    ("set a = a + :a", TEXT, f"{TYPE}+, operand type: S"),
    ("set a = :a - a", {":a": {"NULL": True}}, f"{TYPE}-, operand type: NULL"),
]


@pytest.mark.parametrize(("text", "values", "message"), UPDATES, ids=range(len(UPDATES)))
def test_updates(text: str, values: Values | None, message: str) -> None:
    assert said(lambda: update.parse(text, Placeholders(None, values))) == f"Invalid UpdateExpression: {message}"


def test_paths_overlap_by_what_their_names_stand_for() -> None:
    names = {"#c": "c", "#d": "[3]"}
    overlapping = said(lambda: update.parse("set #c[3].#d = a, #c[3] = a", Placeholders(names)))
    assert overlapping == f"Invalid UpdateExpression: {OVERLAP}[c, [3], [3]], path two: [c, [3]]"
    conflicting = said(lambda: update.parse("set #c[3].#d = a, #c.#d[3] = if_not_exists(a)", Placeholders(names)))
    assert conflicting == f"Invalid UpdateExpression: {CONFLICT}[c, [3], [3]], path two: [c, [3], [3]]"


PROJECTIONS = [
    ("", "The expression can not be empty;"),
    ("a b", f'{SYNTAX}"b", near: "a b"'),
    ("a,", f'{SYNTAX}"<EOF>", near: ","'),
    ("!!!", f'{SYNTAX}"!", near: "!!"'),
    ("(a)", f'{SYNTAX}"(", near: "(a"'),
    ("a, :b", f'{SYNTAX}":b", near: ", :b"'),
    ("a, comment", f"{RESERVED}comment"),
    ("#x", f"{UNDEFINED_NAME}#x"),
    ("a, b, a", f"{OVERLAP}[a], path two: [a]"),
    ("a, a.b", f"{OVERLAP}[a], path two: [a, b]"),
    ("a.b, c, a", f"{OVERLAP}[a, b], path two: [a]"),
    ("a.b, a[1]", f"{CONFLICT}[a, b], path two: [a, [1]]"),
    (f"a{'.b' * 32}", "The document path has too many nesting levels; nesting levels: 33"),
]


@pytest.mark.parametrize(("text", "message"), PROJECTIONS, ids=range(len(PROJECTIONS)))
def test_projections(text: str, message: str) -> None:
    assert said(lambda: projection.parse(text, Placeholders())) == f"Invalid ProjectionExpression: {message}"


OPERATOR = "Invalid operator used in KeyConditionExpression: "
INVALID_CONDITION = "Invalid condition in KeyConditionExpression: "
NESTED = "KeyConditionExpressions cannot contain nested operations"
MULTIPLE = f"{INVALID_CONDITION}Multiple attribute names used in one condition"
NESTED_ATTRIBUTES = "KeyConditionExpressions cannot have conditions on nested attributes"
NO_KEY = f"{INVALID_CONDITION}No key attribute specified"
ONE_PER_KEY = "KeyConditionExpressions must only contain one condition per key"
MISSED = "Query condition missed key schema element: "
NOT_SUPPORTED = "Query key condition not supported"
WRONG_SCHEMA = "One or more parameter values were invalid: Condition parameter type does not match schema type"
EMPTY = (
    "One or more parameter values are not valid. "
    "The AttributeValue for a key attribute cannot contain an empty string value. Key: "
)

KEYS = [
    ("a > b and size(b) > c or a > c", f"{OPERATOR}OR"),
    ("a in (b, size(c), d)", f"{OPERATOR}IN"),
    ("attribute_exists(a)", f"{OPERATOR}attribute_exists"),
    ("contains(a.d, b)", f"{OPERATOR}contains"),
    ("not a > b", f"{OPERATOR}NOT"),
    ("a <> b", f"{OPERATOR}<>"),
    (":s between size(b) and size(a) and b > :s", f"{INVALID_CONDITION}BETWEEN operator must have the key attribute as its first operand"),
    ("begins_with(:s, b) and a > :s", f"{INVALID_CONDITION}begins_with operator must have the key attribute as its first operand"),
    ("size(b) > a AND a.b > b AND b > c", NESTED),
    ("a > size(b.d)", NESTED),
    ("a between size(b) and size(a)", NESTED),
    ("b > a.b", MULTIPLE),
    ("b between c[1] and d", MULTIPLE),
    ("a between b and size(a)", MULTIPLE),
    ("begins_with(a, b)", MULTIPLE),
    ("b.d > a AND c.d > e.f", NESTED_ATTRIBUTES),
    ("b[0] > a", NESTED_ATTRIBUTES),
    (":s > :t AND a < :s", NO_KEY),
    ("b > :s AND b < :s and c = :s and d = :s", ONE_PER_KEY),
    ("(a > :s and b > :s) and (b > :s and c > :s)", ONE_PER_KEY),
    ("sk = :s", f"{MISSED}pk"),
    ("pk = :s AND oth = :s", f"{MISSED}sk"),
    ("pk > :s", NOT_SUPPORTED),
    ("pk = :n", WRONG_SCHEMA),
    ("pk = :s AND sk > :n", WRONG_SCHEMA),
    ("pk = :e", f"{EMPTY}pk"),
    ("pk = :s AND begins_with(sk, :e)", f"{EMPTY}sk"),
    ("pk = :s AND sk = :s AND c = :s", "Conditions can be of length 1 or 2 only"),
    ("pk = :x", f"Invalid KeyConditionExpression: {UNDEFINED_VALUE}:x"),
    ("pk = :s AND begins_with(sk, :n)", f"Invalid KeyConditionExpression: {TYPE}begins_with, operand type: N"),
    ("data = :s", f"Invalid KeyConditionExpression: {RESERVED}data"),
    ("pk = ", f'Invalid KeyConditionExpression: {SYNTAX}"<EOF>", near: "="'),
    ("", "Invalid KeyConditionExpression: The expression can not be empty;"),
]  # fmt: skip
KEY_VALUES: Values = {":s": {"S": "1"}, ":t": {"S": "2"}, ":n": {"N": "1"}, ":e": {"S": ""}}
SCHEMA = KeySchema((Attribute("pk", "S"),), (Attribute("sk", "S"),))


@pytest.mark.parametrize(("text", "message"), KEYS, ids=range(len(KEYS)))
def test_key_conditions(text: str, message: str) -> None:
    assert said(lambda: keycondition.parse(text, Placeholders(None, KEY_VALUES), SCHEMA)) == message


SEVERAL = KeySchema(
    (Attribute("h1", "S"), Attribute("h2", "S")), (Attribute("r1", "S"), Attribute("r2", "S"), Attribute("r3", "S"))
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h1 = :s", f"{MISSED}h2"),
        ("h1 = :s AND h2 > :s", NOT_SUPPORTED),
        ("h1 = :s AND h2 = :s AND r2 = :s", f"{MISSED}r1"),
        ("h1 = :s AND h2 = :s AND r1 = :s AND r3 = :s", f"{MISSED}r2"),
        ("h1 = :s AND h2 = :s AND r1 > :s AND r2 = :s", NOT_SUPPORTED),
        ("h1 = :s AND h2 = :s AND r1 = :s AND r2 = :s AND r3 = :s AND x = :s", NOT_SUPPORTED),
    ],
)
def test_key_conditions_of_several_attributes(text: str, message: str) -> None:
    assert said(lambda: keycondition.parse(text, Placeholders(None, KEY_VALUES), SEVERAL)) == message


def test_of_a_key_condition_syntax_comes_long_before_keys() -> None:
    read = keycondition.read("a <> :s", Placeholders(None, KEY_VALUES))
    assert said(read.check) == f"{OPERATOR}<>"
    assert keycondition.read("x = :s", Placeholders(None, KEY_VALUES)).check().keys() == {"x"}


NAMES_ARE, VALUES_ARE = "ExpressionAttributeNames", "ExpressionAttributeValues"
PLACEHOLDERS: list[tuple[Names | None, Values | None, Mapping[str, str | None] | None, str]] = [
    ({}, {}, {"ProjectionExpression": None}, f"{NAMES_ARE} can only be specified when using expressions"),
    (
        None,
        {},
        {"UpdateExpression": None, "ConditionExpression": None},
        f"{VALUES_ARE} can only be specified when using expressions",
    ),
    (
        None,
        {},
        {"FilterExpression": None, "ProjectionExpression": "a"},
        f"{VALUES_ARE} can only be specified when using expressions",
    ),
    ({}, {}, {"FilterExpression": ""}, f"{NAMES_ARE} must not be empty"),
    ({"a": "a"}, {}, None, f'{NAMES_ARE} contains invalid key: Syntax error; key: "a"'),
    ({"#a-b": "a"}, {}, None, f'{NAMES_ARE} contains invalid key: Syntax error; key: "#a-b"'),
    ({"#a": ""}, {}, None, f"{NAMES_ARE} contains invalid value: Empty attribute name for key #a"),
    (None, {}, None, f"{VALUES_ARE} must not be empty"),
    (None, {":b": {}, "b": {"S": "a"}}, None, f'{VALUES_ARE} contains invalid key: Syntax error; key: "b"'),
    (
        None,
        {":b": {"L": [{}]}},
        None,
        "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
    ),
    (
        None,
        {":b": {"SS": []}},
        None,
        "One or more parameter values were invalid: An string set  may not be empty",
    ),
    (
        None,
        {":b": {"N": "b"}},
        None,
        "The parameter cannot be converted to a numeric value: b",
    ),
    (None, {":b": {"S": "x" * (2 * 1024 * 1024)}}, None, f"{VALUES_ARE} exceeds max size"),
]


@pytest.mark.parametrize(("names", "values", "expressions", "message"), PLACEHOLDERS, ids=range(len(PLACEHOLDERS)))
def test_placeholders(
    names: Names | None, values: Values | None, expressions: Mapping[str, str | None] | None, message: str
) -> None:
    assert said(lambda: Placeholders(names, values, expressions)) == message


@pytest.mark.parametrize(
    ("values", "expressions", "message"),
    [
        (
            {},
            {"UpdateExpression": None, "ConditionExpression": None},
            ": UpdateExpression and ConditionExpression are null",
        ),
        ({}, {"FilterExpression": None, "ProjectionExpression": "a"}, ": FilterExpression is null"),
        ({":b": {"N": ""}}, None, "invalid value: The parameter cannot be converted to a numeric value for key :b"),
    ],
)
def test_older_operations_say_more_of_placeholders(
    values: Values, expressions: Mapping[str, str | None] | None, message: str
) -> None:
    def parse() -> None:
        with older():
            Placeholders(None, values, expressions)

    assert said(parse).endswith(message)


def test_unused_placeholders() -> None:
    placeholders = Placeholders({"#a": "a", "#b": "b", "#c": "c"}, {":a": {"S": "a"}, ":b": {"S": "b"}})
    update.parse("remove #b", placeholders)
    assert (
        said(placeholders.finish) == "Value provided in ExpressionAttributeNames unused in expressions: keys: {#a, #c}"
    )
    condition.parse("#a = :a OR #c = :a", placeholders)
    assert said(placeholders.finish) == "Value provided in ExpressionAttributeValues unused in expressions: keys: {:b}"
    projection.parse("x", placeholders)
    keycondition.read("y = :b", placeholders)
    placeholders.finish()


def test_names_and_values_are_text_that_has_a_form() -> None:
    assert "#a" in said(lambda: Placeholders({"#a": "\ud800"}))
    assert "65536 bytes for key #a" in said(lambda: Placeholders({"#a": "x" * 65536}))
    assert "too long" in said(lambda: Placeholders({f"#{'a' * 255}": "x"}))
    assert "no form in UTF-8" in said(lambda: Placeholders(None, {":a": {"S": "\ud800"}}))
    assert "Syntax error" in said(lambda: condition.parse("\ud800 = b", Placeholders()))


def test_there_are_as_many_reserved_words_as_in_the_documentation() -> None:
    assert len(WORDS) == 573
    for word in WORDS:
        assert word == word.upper()

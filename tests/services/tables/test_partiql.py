"""Statements of PartiQL: how they are read, what keys they name, and what DynamoDB says of wrong ones."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owsgit.services.tables.errors import ValidationError
from owsgit.services.tables.expressions import condition
from owsgit.services.tables.keys import Attribute, KeySchema
from owsgit.services.tables.partiql import binding, grammar, plans
from owsgit.services.tables.partiql.statements import Change, Delete, Exists, Insert, Select, Source

NOT_WELL = "Statement wasn't well formed, can't be processed: "
LEFTOVER = f"{NOT_WELL}Unexpected token after expression"
TERM = f"{NOT_WELL}Unexpected term"
OVERLAPPING = "Overlapping conditions with range keys are not supported in where clause"
SCHEMA = KeySchema((Attribute("pk", "S"),), (Attribute("sk", "S"),))

MALFORMED = {
    "no-verb": ('SLECT * FROM "t"', f"{NOT_WELL}Expected data manipulation"),
    "leftover": ("SELECT * FROM t WHERE pk = 1 foo", LEFTOVER),
    "exponent-apart": ("SELECT * FROM t WHERE pk = 1 e5", LEFTOVER),
    "leftover-insert": ("INSERT INTO t VALUE {'pk': 1} foo", LEFTOVER),
    "alias-insert": ("INSERT INTO t x VALUE {'pk': 1}", LEFTOVER),
    "parenthesis": ("SELECT * FROM t WHERE pk = 1)", LEFTOVER),
    "order-delete": ("DELETE FROM t WHERE pk = 1 ORDER BY pk", LEFTOVER),
    "order-first": ("SELECT * FROM t ORDER BY pk WHERE pk = 1", LEFTOVER),
    "where-late": ("FROM t SET c = 1 WHERE pk = 'x'", LEFTOVER),
    "exponent": ("SELECT * FROM t WHERE pk = 1e2147483648", NOT_WELL),
    "scale": ("SELECT * FROM t WHERE pk = 1.5e-2147483647", NOT_WELL),
    "hash": ("SELECT * FROM t WHERE pk = 1 # note", NOT_WELL),
    "comment-open": ("SELECT * FROM t WHERE pk = 1 /* note", NOT_WELL),
    "quote-open": ('SELECT * FROM "t', NOT_WELL),
    "surrogate": ("SELECT * FROM t WHERE pk = '\ud800'", NOT_WELL),
    "where-empty": ("SELECT * FROM t WHERE", TERM),
    "where-semicolon": ("SELECT * FROM t WHERE;", TERM),
    "where-not": ("SELECT * FROM t WHERE NOT", TERM),
    "where-open": ("SELECT * FROM t WHERE (", TERM),
    "update-where-empty": ("UPDATE t SET a = 1 WHERE", TERM),
    "and-empty": (
        "SELECT * FROM t WHERE pk = 'a' AND",
        f"{NOT_WELL}Missing right-hand side expression of infix operator",
    ),
    "where-order": ("SELECT * FROM t WHERE ORDER BY pk", f"{NOT_WELL}Unexpected keyword"),
    "where-is": ("SELECT * FROM t WHERE IS NULL", f"{NOT_WELL}Unexpected operator"),
    "where-like": ("SELECT * FROM t WHERE pk = LIKE", f"{NOT_WELL}Unexpected operator"),
    "is-type": ("SELECT * FROM t WHERE x IS FOO", f"{NOT_WELL}Expected type name"),
    "delete-no-table": ("DELETE FROM WHERE pk = 'a'", f"{NOT_WELL}Expected identifier for simple path"),
    "select-no-table": ("SELECT * FROM", TERM),
    "dot": ("SELECT * FROM t WHERE attribute_exists(m.inner)", f"{NOT_WELL}Invalid path dot component"),
    "minus-path": ("SELECT * FROM t WHERE n > -n", TERM),
    "alias": ('SELECT * FROM "t" x WHERE pk = 1', "Aliasing is not supported"),
    "alias-as": ('SELECT * FROM "t" AS x', "Aliasing is not supported"),
    "alias-delete": ("DELETE FROM t x WHERE pk = 'x'", "Aliasing is not supported"),
    "overflow": (
        "SELECT * FROM t WHERE pk = 1e126",
        "Number overflow. Attempting to store a number with magnitude larger than supported range under root",
    ),
    "underflow-list": (
        "INSERT INTO t VALUE {'pk': 1, 'm': {'x': [1, 1e-131]}}",
        "Number underflow. Attempting to store a number with magnitude smaller than supported range under root.x[1]",
    ),
    "digits": (
        f"UPDATE t SET a = {'123456789' * 5} WHERE pk = 1",
        "Attempting to store more than 38 significant digits in a Number under root",
    ),
    "index-negative": (
        "SELECT l[-1] FROM t",
        "List index is not within the allowable range; index: [-1] at 1:11:1",
    ),
    "index-large": (
        "SELECT l[2147483648] FROM t",
        "List index is not within the allowable range; index: [2147483648] at 1:10:10",
    ),
    "bag-empty": ("INSERT INTO t VALUE {'s': <<>>}", "Empty bags are not supported"),
    "bag-mixed": (
        "INSERT INTO t VALUE {'s': <<1, 'a'>>}",
        "Unsupported data type in Bag. DynamoDB only supports either numbers or strings in bags",
    ),
    "bag-twice": (
        "INSERT INTO t VALUE {'s': <<'a', 'a'>>}",
        "One or more parameter values were invalid: Input collection [a, a] contains duplicates.",
    ),
    "bag-numbers-twice": (
        "UPDATE t SET n = set_add(n, <<2, 2.0>>) WHERE pk = 1",
        "One or more parameter values were invalid: Input collection [2, 2.0] contains duplicates! under root",
    ),
    "parameter-inside": (
        "INSERT INTO t VALUE {'m': {'k': ?}}",
        "Unsupported data type: Parameter under key root.k at 1:33:1",
    ),
    "function-value": (
        "INSERT INTO t VALUE {'ss': set_add(<<'a'>>, <<'b'>>)}",
        "Unsupported data type: set_add under key root at 1:28:7",
    ),
    "too-deep": (
        f"UPDATE t SET d = {'[' * 32}1{']' * 32} WHERE pk = 1",
        f"Nesting Levels have exceeded supported limits under root{'[0]' * 32}",
    ),
    "unknown-function": ("SELECT * FROM t WHERE EXISTS(ss)", "Unrecognized function: exists at 1:23:6"),
    "function-column": ("SELECT attribute_exists(ss) FROM t", "Unexpected path component at 1:8:16"),
    "star-and-more": (
        "SELECT *, a FROM t",
        "Other attributes should not be present in the projection when '*' is used.",
    ),
    "three-components": ('SELECT * FROM "t"."i"."x"', "A path may contain at most 2 components in the FROM clause"),
    "empty-table": ('SELECT * FROM ""', "Path component cannot be an empty string"),
    "index-written": ("DELETE FROM t.i WHERE pk = 1", "This operation is not supported on an index"),
    "returning": (
        "DELETE FROM t WHERE pk = 1 RETURNING MODIFIED OLD *",
        "Invalid returning clause: RETURNING MODIFIED OLD *. Only RETURNING ALL OLD * is allowed in DELETE statements.",
    ),
    "set-other": (
        "UPDATE t SET o = set_add(s, <<'x'>>) WHERE pk = 1",
        "The first argument to SET_ADD must equal the assignment value at 1:18:7",
    ),
    "set-no-set": (
        "UPDATE t\nSET band = set_delete(\"band\", ['x']) WHERE pk = 1",
        "The second argument to SET_DELETE must be a value with type SET at 2:23:6",
    ),
    "set-one": (
        "UPDATE t SET s = set_add(s) WHERE pk = 1",
        "SET_ADD must have exactly two arguments at 1:18:7",
    ),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_said_of_wrong_statements(text: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        grammar.read(text)
    assert caught.value.message == message


BINDING = {
    "parameters": ("SELECT * FROM t WHERE a = ?", [], binding.PARAMETERS_DIFFER),
    "parameters-left": ("SELECT * FROM t WHERE a = 1", [{"S": "x"}], binding.PARAMETERS_DIFFER),
    "ordered": (
        "SELECT * FROM t WHERE a < ?",
        [{"BOOL": True}],
        "Incorrect operand type for operator or function; operator or function: <, operand type: BOOL",
    ),
    "exists-literal": (
        "SELECT * FROM t WHERE attribute_exists('ss')",
        [],
        "Operator or function requires a document path; operator or function: attribute_exists",
    ),
    "exists-none": (
        "SELECT * FROM t WHERE attribute_exists()",
        [],
        "Incorrect number of operands for operator or function; "
        "operator or function: attribute_exists, number of operands: 0",
    ),
    "in-many": (
        f"SELECT * FROM t WHERE a IN [{', '.join(map(str, range(101)))}]",
        [],
        "The IN operator is provided with too many operands; number of operands: 101",
    ),
    "sum": (
        "UPDATE t SET n = 'a' + 1 WHERE pk = 'x'",
        [],
        "Incorrect operand type for operator or function; operator or function: +, operand type: S",
    ),
}


@pytest.mark.parametrize(("text", "parameters", "message"), BINDING.values(), ids=BINDING)
def test_what_is_said_of_wrong_values(text: str, parameters: list[Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        binding.bind(text, parameters)
    assert caught.value.message == message


def test_statements_are_read() -> None:
    select = grammar.read('select a, "b".c[1] FROM "t"."i" -- here\nWHERE a = 1 ORDER BY sk DESC;').statement
    assert isinstance(select, Select)
    assert select.source == Source("t", "i")
    assert select.columns is not None
    assert select.columns.names() == ["a", "b"]
    assert select.columns.of({"a": {"N": "1"}, "b": {"M": {"c": {"L": [{"S": "x"}, {"S": "y"}]}}}}) == {
        "a": {"N": "1"},
        "c[1]": {"S": "y"},
    }
    assert isinstance(grammar.read("INSERT INTO t VALUE {}").statement, Insert)
    change = grammar.read("FROM t WHERE pk = 'x' SET a = 1, b = b - - 2 REMOVE c[0] RETURNING ALL NEW *").statement
    assert isinstance(change, Change)
    assert [clause.verb for clause in change.clauses] == ["SET", "SET", "REMOVE"]
    assert change.returning == "ALL_NEW"
    delete = grammar.read("DELETE FROM t WHERE pk = ? RETURNING ALL OLD *")
    assert isinstance(delete.statement, Delete)
    assert delete.parameters == 1
    assert isinstance(grammar.read("EXISTS(SELECT * FROM t WHERE pk = 'x' AND a IS MISSING)").statement, Exists)


def test_values_are_read() -> None:
    text = "INSERT INTO t VALUE {'a': 1E3, 'b': -1.5e-3, 'c': .5, 'd': -0, 'q': 'it''s', 't': true, 'n': null, 'p': ?,"
    text += " 'l': [1, 'x'], 'm': {'k': <<'s', 'r'>>}, 'ns': <<1, 4.50>>, 's': - - 1}"
    assert binding.bind(text, [{"B": b"x"}]).item == {
        "a": {"N": "1000"},
        "b": {"N": "-0.0015"},
        "c": {"N": "0.5"},
        "d": {"N": "0"},
        "q": {"S": "it's"},
        "t": {"BOOL": True},
        "n": {"NULL": True},
        "p": {"B": b"x"},
        "l": {"L": [{"N": "1"}, {"S": "x"}]},
        "m": {"M": {"k": {"SS": ["r", "s"]}}},
        "ns": {"NS": ["1", "4.5"]},
        "s": {"N": "1"},
    }


ITEM = {
    "s": {"S": "str"},
    "n": {"N": "5"},
    "ss": {"SS": ["a", "b"]},
    "m": {"M": {"l": {"L": [{"N": "1"}]}}},
    "nul": {"NULL": True},
    "flag": {"BOOL": True},
}
HOLDS = [
    "n = 5 AND n <> 4 AND n != 4 AND n < 6 AND n <= 5 AND n > 4 AND n >= 5",
    "n BETWEEN - 2 AND +5",
    "NOT n BETWEEN 6 AND 7",
    "n NOT BETWEEN 6 AND 7",
    "n IN [1, 5] AND n IN (5) AND NOT n IN [4]",
    "n = 4 OR n = 5 AND s = 'str'",
    "nope IS MISSING AND s IS NOT MISSING",
    "nul IS NULL AND s IS NOT NULL AND nope IS NOT NULL",
    "flag IS BOOL AND s IS STRING AND ss IS BAG AND NOT s IS BOOL",
    "begins_with(s, 'st') AND NOT begins_with(\"s\", 'x')",
    "contains(ss, 'a') AND CONTAINS(s, 't')",
    "attribute_type(ss, 'SS') AND size(s) = 3",
    'm.l[0] = 1 AND "m"."l"[0] = 1 AND m[\'l\'][0] = 1',
    "attribute_exists(m.l) AND ATTRIBUTE_NOT_EXISTS (nope)",
    "attribute_exists(n) = true AND (n = 4) = false AND attribute_exists(nope) <> true",
    "((n = 5))",
    "5 = n AND 'str' = s",
    "NOT NOT n = 5",
]


@pytest.mark.parametrize("text", HOLDS)
def test_conditions_hold(text: str) -> None:
    where = binding.bind(f"SELECT * FROM t WHERE {text}", []).where
    assert where is not None
    assert condition.made(where).holds(ITEM)
    denied = binding.bind(f"SELECT * FROM t WHERE NOT ({text})", []).where
    assert denied is not None
    assert not condition.made(denied).holds(ITEM)


def found(where: str) -> list[tuple[str, str, int]] | None:
    """The branches of a condition: hash key, what is wanted of the range key, and how many conditions are left."""
    branches = plans.branches(SCHEMA, binding.bind(f"SELECT * FROM t WHERE {where}", []).where)
    if branches is None:
        return None
    shown = []
    for branch in branches:
        term = branch.term
        wanted = "" if term is None else f"{term.operator} {' '.join(value['S'] for value in term.values)}"
        shown.append((branch.hash["S"], wanted, len(branch.rest)))
    return shown


READS: dict[str, list[tuple[str, str, int]] | None] = {
    "pk = 'a'": [("a", "", 0)],
    "'a' = pk AND '1' < sk": [("a", "> 1", 0)],
    "pk = 'a' AND sk BETWEEN '1' AND '2' AND f = 1": [("a", "BETWEEN 1 2", 1)],
    "begins_with(sk, 'x') AND pk = 'a'": [("a", "begins_with x", 0)],
    "pk IN ['a', 'b'] AND f = 1": [("a", "", 1), ("b", "", 1)],
    "pk = 'a' OR pk = 'b' AND f = 1": [("a", "", 0), ("b", "", 1)],
    "pk = 'a' AND sk IN ['1', '2']": [("a", "= 1", 0), ("a", "= 2", 0)],
    "pk = 'a' AND (sk = '1' OR sk = '2' AND f = 1)": [("a", "= 1", 0), ("a", "= 2", 1)],
    "pk = 'a' AND (sk < '1' OR sk > '1' OR sk = '1')": [("a", "< 1", 0), ("a", "> 1", 0), ("a", "= 1", 0)],
    "pk = 'a' AND sk = '1' AND sk > '0'": [("a", "= 1", 1)],
    "pk = 'a' AND NOT sk = '1'": [("a", "", 1)],
    "pk = 'a' AND NOT sk = '1' OR pk = 'a' AND sk = '2'": [("a", "", 1)],
    "pk = 'a' OR f = 1": None,
    "pk > 'a'": None,
    "NOT pk = 'a'": None,
    "f = 1 AND sk = '1'": None,
    "pk = 'a' OR sk = '1'": None,
}


@pytest.mark.parametrize(("where", "expected"), READS.items(), ids=READS)
def test_what_is_read(where: str, expected: list[tuple[str, str, int]] | None) -> None:
    assert found(where) == expected


UNREAD = {
    "pk IN ['a', 'a']": OVERLAPPING,
    "pk = 'a' AND (sk > '0' OR sk < '5')": OVERLAPPING,
    "pk = 'a' AND (sk = '1' OR flag = 'x')": OVERLAPPING,
    "(pk = 'a' AND f = 1) OR (pk = 'a' AND g = 1)": OVERLAPPING,
    "pk = 1 OR pk = 'a'": "Key attribute's data type should match its data type in table's schema: Key pk",
    "pk = 'a' AND sk IN ['1', 2]": "Key attribute's data type should match its data type in table's schema: Key sk",
    f"pk IN [{', '.join(map(repr, 'abcdefghijklmnopqrstuvwxyz'))}] AND sk IN ['1', '2']": (
        "Too many decomposed read operations for a given query."
    ),
    " AND ".join(["pk = 'a'", *["(sk = '1' OR f = 1 OR g = 1)"] * 40]): (
        "Too many decomposed read operations for a given query."
    ),
}


@pytest.mark.parametrize(("where", "message"), UNREAD.items(), ids=[str(number) for number in range(len(UNREAD))])
def test_what_is_not_read(where: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        found(where)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "text",
    [
        f"SELECT * FROM t WHERE {'(' * 4000}",
        f"SELECT * FROM t WHERE a = {'[' * 4000}",
        f"SELECT * FROM t WHERE a = {'{{}' * 2000}",
        f"SELECT * FROM t WHERE {'NOT ' * 2000}a = 1",
        f"SELECT * FROM t WHERE {'size(' * 1600}",
        f"UPDATE t SET {'a = 1, ' * 1000}b = 1 WHERE pk = 1",
        f"SELECT a{'[0]' * 2000} FROM t",
        f"SELECT * FROM t{' ' * 9000}",
    ],
    ids=["groups", "lists", "maps", "not", "calls", "clauses", "path", "long"],
)
def test_everything_is_bounded(text: str) -> None:
    with pytest.raises(ValidationError):
        grammar.read(text)


WORDS = [
    *[
        "SELECT",
        "FROM",
        "WHERE",
        "INSERT",
        "INTO",
        "VALUE",
        "UPDATE",
        "SET",
        "REMOVE",
        "DELETE",
        "EXISTS",
        "RETURNING",
        "ALL",
        "OLD",
        "NOT",
        "IN",
        "IS",
        "BETWEEN",
        "AND",
        "OR",
    ],
    *[
        "NULL",
        "MISSING",
        "true",
        "ORDER",
        "BY",
        "*",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "<<",
        ">>",
        "=",
        "<",
        "<>",
        ".",
        ",",
        ":",
        ";",
        "?",
        "+",
        "-",
        "a",
        "pk",
        '"q"',
        "'x'",
        "1",
        ".5",
        "1e9",
        "size",
        "contains",
        "set_add",
    ],
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join),
    st.sampled_from(["", "SELECT * FROM t WHERE ", "UPDATE t SET a = "]),
)
def test_whatever_is_said_is_read_or_refused(text: str, start: str) -> None:
    try:
        parsed = grammar.read(start + text)
        bound = binding.bind(start + text, [{"S": "x"}] * parsed.parameters)
        binding.attributes(bound)
        plans.branches(SCHEMA, bound.where)
        plans.item_key(SCHEMA, bound.where, several=True)
        plans.only_key(SCHEMA, bound.where)
    except ValidationError:
        pass

"""Reads operands, values and conditions of statements.

What is wrong with the syntax is raised at once. What is wrong with what is said is kept until the statement is read to
its end, as DynamoDB speaks of syntax first; the first of it is raised then.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from owsgit.services.tables.errors import ValidationError
from owsgit.services.tables.expressions.condition import Compared, Joined, Tree
from owsgit.services.tables.expressions.operands import (
    CONDITION_FUNCTIONS,
    PATH_DEPTH_MAX,
    Call,
    Literal,
    Operand,
    Path,
    Value,
)
from owsgit.services.tables.expressions.tokens import DEPTH_MAX, INDEX_MAX, OPERATORS_MAX
from owsgit.services.tables.partiql import literals
from owsgit.services.tables.partiql.tokens import (
    END,
    KEYWORDS,
    NAME,
    NUMBER,
    TEXT,
    WORD,
    Token,
    malformed,
    position,
    tokens,
)
from owsgit.services.tables.values import AttributeValue

COMPARATORS = ("=", "<>", "<", "<=", ">", ">=")
_OPERATORS = frozenset((*COMPARATORS, "AND", "OR", "IN", "IS", "LIKE", "BETWEEN", "*"))
"""Where a term should begin, DynamoDB calls these so; other words are keywords to it."""
_NO_FUNCTIONS = _OPERATORS | {"NOT", "SELECT", "FROM", "WHERE", "SET", "REMOVE", "ORDER", "RETURNING"}

TYPES: Mapping[str, tuple[str, ...]] = {
    "NULL": ("NULL",),
    "BOOL": ("BOOL",),
    "BOOLEAN": ("BOOL",),
    "STRING": ("S",),
    "VARCHAR": ("S",),
    "CHAR": ("S",),
    "INT": ("N",),
    "INTEGER": ("N",),
    "SMALLINT": ("N",),
    "FLOAT": ("N",),
    "REAL": ("N",),
    "DECIMAL": ("N",),
    "NUMERIC": ("N",),
    "BLOB": ("B",),
    "LIST": ("L",),
    "STRUCT": ("M",),
    "TUPLE": ("M",),
    "BAG": ("SS", "NS", "BS"),
}
"""Of IS: names of PartiQL's types, and what they are as types of attributes."""

Node = Tree | Operand
Result = TypeVar("Result")
_LITERALS = frozenset((TEXT, NUMBER, "TRUE", "FALSE", "NULL", "MISSING", "{", "[", "<<", "+", "-"))
_RIGHT_MISSING = "Missing right-hand side expression of infix operator"
_TERM = "Unexpected term"


class StatementReader:
    def __init__(self, statement: str) -> None:
        self._statement = statement
        self._tokens = tokens(statement)
        self._at = 0
        self.kind = self._tokens[0].kind
        """Of the next token."""
        self.parameters = 0
        """How many there are so far."""
        self._depth = 0
        self._operators = 0
        self._problem: ValidationError | None = None

    # Tokens

    @property
    def token(self) -> Token:
        """The next one."""
        return self._tokens[self._at]

    @property
    def after(self) -> str:
        """The kind of the token after the next one."""
        return self._tokens[min(self._at + 1, len(self._tokens) - 1)].kind

    def after_opening(self) -> Token:
        """The first token of the operands of a function whose name was taken."""
        return self._tokens[min(self._at + 1, len(self._tokens) - 1)]

    def since(self, start: Token) -> list[str]:
        """What was taken from a token on."""
        return [token.text for token in self._tokens[: self._at] if token.start >= start.start]

    def take(self) -> Token:
        token = self._tokens[self._at]
        if token.kind != END:
            self._at += 1
            self.kind = self._tokens[self._at].kind
        return token

    def accept(self, kind: str) -> bool:
        if self.kind != kind:
            return False
        self.take()
        return True

    def word(self, *words: str) -> str | None:
        """One of these words, keywords or not, if it is next; takes it then."""
        if self.kind in (WORD, *words) and self.token.text.upper() in words:
            return self.take().text.upper()
        return None

    def is_call(self) -> bool:
        """Whether a function is next."""
        return self.after == "(" and (self.kind == WORD or self.kind in KEYWORDS) and self.kind not in _NO_FUNCTIONS

    def expect(self, kind: str, problem: str) -> Token:
        if self.kind != kind:
            raise malformed(problem)
        return self.take()

    def position(self, token: Token) -> str:
        return position(self._statement, token)

    def note(self, message: str) -> None:
        """Something is wrong with what is said."""
        self._problem = self._problem or ValidationError(message)

    def finish(self) -> None:
        """The statement is read to its end."""
        self.accept(";")
        if self.kind != END:
            raise malformed("Unexpected token after expression")
        if self._problem is not None:
            raise self._problem

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ValidationError(f"the statement is nested too deeply: more than {DEPTH_MAX} levels")

    def count(self) -> None:
        self._operators += 1
        if self._operators > OPERATORS_MAX:
            raise ValidationError(f"the statement has more than {OPERATORS_MAX} operators")

    def no_term(self) -> ValidationError:
        """A term should be next, and is not."""
        kind = self.kind
        if kind in _OPERATORS:
            return malformed("Unexpected operator")
        return malformed("Unexpected keyword" if kind in KEYWORDS else _TERM)

    def right(self) -> None:
        """After an operator."""
        self.count()
        if self.kind == END:
            raise malformed(_RIGHT_MISSING)

    # Paths

    def path(self) -> Path:
        steps: list[str | int] = [self._name()]
        while self.kind in (".", "["):
            if self.accept("."):
                if self.kind not in (WORD, NAME):
                    raise malformed("Invalid path dot component")
                steps.append(self.take().text)
                continue
            self.take()
            if self.kind == TEXT:
                steps.append(self.take().text)
            else:
                steps.append(self._index())
            self.expect("]", "Expected RIGHT_BRACKET")
        if "" in steps:
            self.note("Path component cannot be an empty string")
        if len(steps) > PATH_DEPTH_MAX:
            self.note(f"The document path has too many nesting levels; nesting levels: {len(steps)}")
        return Path(tuple(steps), False)

    def _name(self) -> str:
        if self.kind not in (WORD, NAME):
            raise self.no_term()
        return self.take().text

    def _index(self) -> int:
        negative = self._signs()
        token = self.expect(NUMBER, "Expected index")
        text = token.text.lstrip("0") or "0"
        if (
            not text.isdecimal()
            or len(text) > len(str(INDEX_MAX))
            or int(text) > INDEX_MAX
            or (negative and text != "0")
        ):
            shown = f"{'-' if negative else ''}{token.text}"
            self.note(f"List index is not within the allowable range; index: [{shown}] at {self.position(token)}")
            return 0
        return int(text)

    def _signs(self) -> bool:
        """Takes signs; whether a number after them is negative."""
        negative = False
        while self.kind in ("+", "-"):
            negative = (self.take().kind == "-") != negative
        return negative

    # Values

    def is_value(self) -> bool:
        """Whether a literal or a parameter is next."""
        return self.kind in _LITERALS or self.kind == "?"

    def value(self) -> Literal | Value:
        if self.accept("?"):
            self.parameters += 1
            return Value(f":{self.parameters - 1}")
        return Literal(self._literal("root", 1))

    def _literal(self, where: str, depth: int) -> AttributeValue:
        """`where` and `depth` it is in the value of an attribute."""
        self._try(lambda: literals.check_depth(depth, where))
        match self.kind:
            case "TRUE" | "FALSE":
                return {"BOOL": self.take().kind == "TRUE"}
            case "NULL":
                self.take()
                return {"NULL": True}
            case "{":
                return {"M": dict(self.pairs(where, depth))}
            case "[":
                return {"L": self._elements("]", "Expected RIGHT_BRACKET", where, depth)}
            case "<<":
                return self._bag(where, depth)
            case _:
                return self._scalar(where)

    def _scalar(self, where: str) -> AttributeValue:
        if self.kind == TEXT:
            return {"S": self.take().text}
        if self.kind in (NUMBER, "+", "-"):
            sign = "-" if self._signs() else ""
            text = sign + self.expect(NUMBER, _TERM).text
            return self._try(lambda: literals.number(text, where)) or {"N": "0"}
        token = self.token
        if self.accept("?"):
            what = "Parameter"
        elif self.accept("MISSING"):
            what = "Missing"
        elif self.is_call():
            what = token.text
            self.take()
            self.arguments()
        elif self.kind in (WORD, NAME):
            what = token.text
            self.path()
        else:
            raise self.no_term()
        self.note(f"Unsupported data type: {what} under key {where} at {self.position(token)}")
        return {"NULL": True}

    def pairs(self, where: str, depth: int) -> list[tuple[str, AttributeValue]]:
        """The members of a map."""
        return self.members(lambda name: self._literal(f"{where}.{name}", depth + 1))

    def members(self, read: Callable[[str], Result]) -> list[tuple[str, Result]]:
        """What is between { and }: names, and what is read of each."""
        self._deeper()
        self.take()
        found: list[tuple[str, Result]] = []
        while self.kind != "}":
            if found:
                self.expect(",", "Expected COMMA")
            name = self.expect(TEXT, "Expected a string as the name of an attribute").text
            self.expect(":", "Expected COLON")
            found.append((name, read(name)))
        self.take()
        self._depth -= 1
        return found

    def _elements(self, closing: str, problem: str, where: str, depth: int) -> list[AttributeValue]:
        self._deeper()
        self.take()
        found: list[AttributeValue] = []
        while self.kind != closing:
            if found:
                self.expect(",", problem)
            found.append(self._literal(f"{where}[{len(found)}]", depth + 1))
        self.take()
        self._depth -= 1
        return found

    def _bag(self, where: str, depth: int) -> AttributeValue:
        start = self._at
        elements = self._elements(">>", "Expected RIGHT_DOUBLE_ANGLE_BRACKET", where, depth)
        texts = [token.text for token in self._tokens[start : self._at] if token.kind in (NUMBER, TEXT)]
        return self._try(lambda: literals.bag(elements, texts, where)) or {"SS": [""]}

    def _try(self, make: Callable[[], Result]) -> Result | None:
        """What is made; notes the problem with it."""
        try:
            return make()
        except ValidationError as error:
            self._problem = self._problem or error
            return None

    # Operands and conditions

    def condition(self) -> Tree:
        """What comes after WHERE."""
        return self._held(self._or())

    def _held(self, node: Node) -> Tree:
        if isinstance(node, Compared | Joined):
            return node
        self.note("Unsupported operation: a condition has to compare something")
        return Joined("AND", ())

    def _or(self) -> Node:
        return self._joined("OR", lambda: self._joined("AND", self._not))

    def _joined(self, operator: str, read: Callable[[], Node]) -> Node:
        first = read()
        if self.kind != operator:
            return first
        found = [self._held(first)]
        while self.accept(operator):
            self.right()
            found.append(self._held(read()))
        return Joined(operator, tuple(found))

    def _not(self) -> Node:
        negations = 0
        while self.accept("NOT"):
            self.count()
            negations += 1
        node = self._comparison()
        if not negations:
            return node
        tree = self._held(node)
        return Joined("NOT", (tree,)) if negations % 2 else tree

    def _comparison(self) -> Node:
        left = self._term()
        while True:
            if self.kind in COMPARATORS:
                operator = self.take().kind
                self.right()
                left = self._compared(operator, left, self._term())
            elif self.kind == "IS":
                left = self._is(left)
            elif self.kind in ("IN", "BETWEEN") or (self.kind == "NOT" and self.after in ("IN", "BETWEEN")):
                negated = self.accept("NOT")
                found = self._in(left) if self.kind == "IN" else self._between(left)
                left = Joined("NOT", (found,)) if negated else found
            else:
                return left

    def _compared(self, operator: str, left: Node, right: Node) -> Tree:
        """A condition may be compared with true and false."""
        if isinstance(left, Compared | Joined) or isinstance(right, Compared | Joined):
            tree, other = (left, right) if isinstance(left, Compared | Joined) else (right, left)
            wanted = other.value.get("BOOL") if isinstance(other, Literal) else None
            if operator not in ("=", "<>") or wanted is None:
                self.note("Unsupported operation: conditions can only be compared with true and false")
                wanted = True
            assert isinstance(tree, Compared | Joined)
            return tree if wanted == (operator == "=") else Joined("NOT", (tree,))
        return Compared(operator, (left, right))

    def operand(self, node: Node) -> Operand:
        if isinstance(node, Compared | Joined):
            self.note("Unsupported operation: a condition is no operand")
            return Literal({"NULL": True})
        return node

    def _is(self, left: Node) -> Tree:
        self.count()
        self.take()
        negated = self.accept("NOT")
        operand = self.operand(left)
        if self.kind == END:
            raise malformed("Expected type name")
        name = self.take().text.upper()
        found: Tree
        if name == "MISSING":
            return Compared("attribute_exists" if negated else "attribute_not_exists", (operand,))
        if name not in TYPES:
            raise malformed("Expected type name")
        tests = tuple(Compared("attribute_type", (operand, Literal({"S": kind}))) for kind in TYPES[name])
        found = tests[0] if len(tests) == 1 else Joined("OR", tests)
        return Joined("NOT", (found,)) if negated else found

    def _in(self, left: Node) -> Tree:
        self.take()
        self.right()
        closing = {"[": "]", "(": ")", "<<": ">>"}.get(self.kind)
        if closing is None:
            raise malformed("Expected a list after IN")
        self.take()
        operands = [self.operand(left)]
        while self.kind != closing or len(operands) == 1:
            if len(operands) > 1:
                self.expect(",", "Expected COMMA")
            operands.append(self.operand(self._term()))
        self.take()
        return Compared("IN", tuple(operands))

    def _between(self, left: Node) -> Tree:
        self.take()
        self.right()
        low = self.operand(self._term())
        self.expect("AND", "Expected AND after BETWEEN")
        self.right()
        return Compared("BETWEEN", (self.operand(left), low, self.operand(self._term())))

    def _term(self) -> Node:
        if self.kind == "(":
            self._deeper()
            self.take()
            found = self._or()
            self.expect(")", "Expected RIGHT_PAREN")
            self._depth -= 1
            return found
        if self.is_value():
            return self.value()
        return self._function() if self.is_call() else self.path()

    def _function(self) -> Node:
        self.count()
        token = self.take()
        operands = tuple(self.operand(node) for node in self.arguments())
        name = token.text.lower()
        if name == "size":
            return Call(name, operands)
        if name not in CONDITION_FUNCTIONS:
            self.note(f"Unrecognized function: {name} at {self.position(token)}")
        return Compared(name, operands)

    def arguments(self) -> list[Node]:
        self._deeper()
        self.take()
        found: list[Node] = []
        while self.kind != ")":
            if found:
                self.expect(",", "Expected RIGHT_PAREN")
            found.append(self._or())
        self.take()
        self._depth -= 1
        return found

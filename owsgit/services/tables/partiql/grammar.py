"""The statements of PartiQL that DynamoDB has: SELECT, INSERT, UPDATE (also with FROM first), DELETE, and EXISTS.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-reference.statements.html
"""

from functools import lru_cache
from typing import NamedTuple

from owsgit.services.tables.expressions.condition import Tree
from owsgit.services.tables.expressions.operands import Call, Literal, Operand, Path, Value
from owsgit.services.tables.expressions.update import Arithmetic, Clause
from owsgit.services.tables.partiql.reader import StatementReader
from owsgit.services.tables.partiql.statements import (
    Change,
    Columns,
    Delete,
    Exists,
    Insert,
    Order,
    Select,
    Source,
    Statement,
)
from owsgit.services.tables.partiql.tokens import NAME, WORD, Token, malformed
from owsgit.services.tables.values import type_of

_NO_TABLE = "Expected identifier for simple path"
_RETURNING = {
    ("ALL", "OLD"): "ALL_OLD",
    ("ALL", "NEW"): "ALL_NEW",
    ("MODIFIED", "OLD"): "UPDATED_OLD",
    ("MODIFIED", "NEW"): "UPDATED_NEW",
}
_VERBS = {"set_add": "ADD", "set_delete": "DELETE"}
"""Functions of updates, and what they are in an update expression."""


class Parsed(NamedTuple):
    """`parameters`: how many it has."""

    statement: Statement
    parameters: int


KEPT_MAX = 2048
"""Characters of statements that are kept: those that are executed again have parameters and are short."""


def read(statement: str) -> Parsed:
    """Raises ValidationError."""
    return _kept(statement) if len(statement) <= KEPT_MAX else _read(statement)


@lru_cache(maxsize=256)
def _kept(statement: str) -> Parsed:
    return _read(statement)


def _read(statement: str) -> Parsed:
    reader = _Reader(statement)
    found = reader.statement()
    reader.finish()
    return Parsed(found, reader.parameters)


class _Reader(StatementReader):
    def statement(self) -> Statement:
        match self.kind:
            case "SELECT":
                return self._select()
            case "INSERT":
                return self._insert()
            case "UPDATE":
                self.take()
                source = self._written(_NO_TABLE)
                return Change(source, self._clauses(), self._where(), self._returning())
            case "FROM":
                self.take()
                source = self._written(_NO_TABLE)
                where = self._where()
                return Change(source, self._clauses(), where, self._returning())
            case "DELETE":
                return self._delete()
            case "EXISTS":
                return self._exists()
            case _:
                raise malformed("Expected data manipulation")

    # Clauses

    def _select(self) -> Select:
        self.take()
        columns = self._columns()
        self.expect("FROM", "Expected FROM")
        if self.kind not in (WORD, NAME):
            raise self.no_term()
        source = self._source()
        self._no_alias()
        where = self._where()
        return Select(source, columns, where, self._order())

    def _columns(self) -> Columns | None:
        paths = []
        star = 0
        while True:
            if self.accept("*"):
                star += 1
            elif self.is_call():
                token = self.take()
                if self.after == "*":  # COUNT(*)
                    self.take()
                    self.take()
                    self.expect(")", "Expected RIGHT_PAREN")
                else:
                    self.arguments()
                self.note(f"Unexpected path component at {self.position(token)}")
            elif self.is_value():
                token = self.token
                self.value()
                self.note(f"Unexpected path component at {self.position(token)}")
            else:
                paths.append(self.path().steps)
            self._no_alias()
            if not self.accept(","):
                break
        if star + bool(paths) > 1:
            self.note("Other attributes should not be present in the projection when '*' is used.")
        return Columns(tuple(paths)) if paths else None

    def _order(self) -> tuple[Order, ...]:
        if not self.accept("ORDER"):
            return ()
        self.expect("BY", "Expected BY")
        found = []
        while True:
            path = self.path()
            if len(path.steps) > 1:
                self.note("Unsupported operation: ORDER BY takes names of attributes")
            backwards = self.word("ASC", "DESC") == "DESC"
            found.append(Order(str(path.steps[0]), backwards))
            if not self.accept(","):
                return tuple(found)

    def _insert(self) -> Insert:
        self.take()
        self.expect("INTO", "Expected INTO")
        source = self._written(_NO_TABLE, aliased=False)
        self.expect("VALUE", "Unexpected token after expression")
        if self.kind != "{":
            if not self.is_value():
                raise self.no_term()
            token = self.token
            self.value()
            self.note(f"Unsupported data type: an item is a map at {self.position(token)}")
            return Insert(source, ())
        return Insert(source, tuple(self.members(lambda _: self.value())))

    def _delete(self) -> Delete:
        self.take()
        self.expect("FROM", "Expected FROM")
        source = self._written(_NO_TABLE)
        where = self._where()
        start = self.token
        returning = self._returning()
        if returning not in ("NONE", "ALL_OLD"):
            self.note(
                f"Invalid returning clause: {self._shown(start)}. "
                "Only RETURNING ALL OLD * is allowed in DELETE statements."
            )
        return Delete(source, where, returning)

    def _shown(self, start: Token) -> str:
        return " ".join(self.since(start)).upper()

    def _exists(self) -> Exists:
        self.take()
        self.expect("(", "Expected LEFT_PAREN")
        if self.kind != "SELECT":
            raise malformed("Expected SELECT")
        select = self._select()
        self.expect(")", "Expected RIGHT_PAREN")
        return Exists(select)

    def _written(self, problem: str, *, aliased: bool = True) -> Source:
        """What is written to: a table, never an index."""
        if self.kind not in (WORD, NAME):
            raise malformed(problem)
        source = self._source()
        if source.index is not None:
            self.note("This operation is not supported on an index")
        if aliased:
            self._no_alias()
        return source

    def _source(self) -> Source:
        steps = self.path().steps
        names = [step for step in steps if isinstance(step, str)]
        if len(names) < len(steps):
            self.note("Invalid list expression in source.")
        if len(names) > 2:
            self.note("A path may contain at most 2 components in the FROM clause")
        return Source(*names[:2])

    def _no_alias(self) -> None:
        if self.accept("AS") or self.kind in (WORD, NAME):
            self.take()
            self.note("Aliasing is not supported")

    def _where(self) -> Tree | None:
        return self.condition() if self.accept("WHERE") else None

    def _returning(self) -> str:
        if not self.accept("RETURNING"):
            return "NONE"
        which, when = self.word("ALL", "MODIFIED"), self.word("OLD", "NEW")
        if which is None or when is None:
            raise malformed("Expected ALL or MODIFIED, and OLD or NEW, after RETURNING")
        self.expect("*", "Expected STAR")
        return _RETURNING[which, when]

    # Updates

    def _clauses(self) -> tuple[Clause, ...]:
        found: list[Clause] = []
        while self.kind in ("SET", "REMOVE"):
            verb = self.take().kind
            found.append(self._clause(verb))
            while self.accept(","):
                found.append(self._clause(verb))
        if not found:
            raise malformed("Expected data manipulation")
        return tuple(found)

    def _clause(self, verb: str) -> Clause:
        self.count()
        path = self.path()
        if verb == "REMOVE":
            return Clause(verb, path)
        self.expect("=", "Expected EQ")
        if self.is_call() and self.token.text.lower() in _VERBS:
            return self._set_function(path)
        return Clause(verb, path, self._assigned())

    def _assigned(self) -> Operand | Arithmetic:
        if self.accept("("):
            found = self._sum(self._summand())
            self.expect(")", "Expected RIGHT_PAREN")
            return found
        return self._sum(self._summand())

    def _sum(self, left: Operand) -> Operand | Arithmetic:
        if self.kind not in ("+", "-"):
            return left
        operator = self.take().kind
        self.right()
        return Arithmetic(operator, left, self._summand())

    def _summand(self) -> Operand:
        if self.is_value():
            return self.value()
        if not self.is_call():
            return self.path()
        token = self.take()
        operands = tuple(self.operand(node) for node in self.arguments())
        if token.text.lower() != "list_append":
            self.note(f"Unrecognized function: {token.text.lower()} at {self.position(token)}")
        return Call("list_append", operands)

    def _set_function(self, path: Path) -> Clause:
        token = self.take()
        name = token.text.lower()
        shown = name.upper()
        first = self.after_opening()
        operands = [self.operand(node) for node in self.arguments()]
        if len(operands) != 2:
            self.note(f"{shown} must have exactly two arguments at {self.position(token)}")
        elif operands[0] != path:
            self.note(f"The first argument to {shown} must equal the assignment value at {self.position(token)}")
        elif not _may_be_set(operands[1]):
            self.note(f"The second argument to {shown} must be a value with type SET at {self.position(first)}")
        value = operands[-1] if operands else None
        return Clause(_VERBS[name], path, value)


def _may_be_set(operand: Operand) -> bool:
    """Parameters may; what they are is found later."""
    if isinstance(operand, Value):
        return True
    return isinstance(operand, Literal) and type_of(operand.value) in ("SS", "NS", "BS")

"""The words of expressions, and a reader of them that knows what to say of one that is in the wrong place."""

import re
from typing import NamedTuple

TEXT_BYTES_MAX = 4096
DEPTH_MAX = 100
"""Parentheses within parentheses. Ours, so that no text exhausts the stack: DynamoDB names no limit."""
OPERATORS_MAX = 300
INDEX_MAX = 2**31 - 1

END = "<EOF>"


class Problem(Exception):  # noqa: N818 - not an error by itself: the expression's name is still to be put before it
    """What is wrong with an expression, in DynamoDB's words."""


class Token(NamedTuple):
    """`kind`: NAME, one of a grammar's keywords, # or : of a placeholder, NUMBER, a sign, ? or END."""

    kind: str
    text: str
    start: int
    end: int


_TOKEN = re.compile(
    r"[ \t\r\n]*(?:([A-Za-z][A-Za-z0-9_]*)|([#:][A-Za-z0-9_]+)|([0-9]+)|(<>|<=|>=|[=<>()\[\],.+-])|([^ \t\r\n]))",
    re.DOTALL,
)


def tokens(text: str, keywords: frozenset[str]) -> list[Token]:
    """All tokens, and END. `keywords` in capital letters; a text may have them in any case."""
    if not text:
        raise Problem("The expression can not be empty;")
    size = len(text.encode("utf-8", "replace"))
    if size > TEXT_BYTES_MAX:
        raise Problem(f"Expression size has exceeded the maximum allowed size; expression size: {size}")
    found = []
    for match in _TOKEN.finditer(text):
        group = match.lastindex or 0
        word = match[group]
        kind = "?"
        if group == 1:
            kind = upper if (upper := word.upper()) in keywords else "NAME"
        elif group == 2:
            kind = word[0]
        elif group == 3:
            kind = "NUMBER"
        elif group == 4:
            kind = word
        found.append(Token(kind, word, match.start(group), match.end()))
    found.append(Token(END, END, len(text), len(text)))
    return found


class Reader:
    """Goes through the tokens of a text, and counts on the way."""

    def __init__(self, text: str, keywords: frozenset[str]) -> None:
        self._text = text
        self.tokens = tokens(text, keywords)
        self.at = 0
        self.kind = self.tokens[0].kind
        """Of the next token."""
        self._depth = 0
        self._operators = 0

    def take(self) -> str:
        """The next token's text; goes on to the one after it."""
        text = self.tokens[self.at].text
        self.at += 1
        self.kind = self.tokens[self.at].kind
        return text

    def expect(self, kind: str) -> str:
        if self.kind != kind:
            raise self.unexpected()
        if kind == END:
            return ""
        return self.take()

    def accept(self, kind: str) -> bool:
        """Whether the next token is of this kind; takes it then."""
        if self.kind != kind:
            return False
        self.take()
        return True

    def unexpected(self) -> Problem:
        """The next token is in the wrong place. DynamoDB shows it with the one before it and the one after it."""
        token = self.tokens[self.at]
        before = self.tokens[self.at - 1] if self.at else token
        if token.kind == END:
            near = before.text if self.at else ""
        else:
            after = self.tokens[self.at + 1]
            near = self._text[before.start : token.end if after.kind == END else after.end]
        return Problem(f'Syntax error; token: "{token.text}", near: "{near}"')

    def deeper(self) -> None:
        """Count a parenthesis that opens."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise Problem(f"The expression is nested too deeply; nesting levels: {self._depth}")

    def higher(self) -> None:
        """Count a parenthesis that closes."""
        self._depth -= 1

    def count(self) -> None:
        """Count an operator or a function."""
        self._operators += 1

    def check_operators(self) -> None:
        if self._operators > OPERATORS_MAX:
            raise Problem(f"The expression contains too many operators; operator count: {self._operators}")

    def closing(self) -> dict[int, int]:
        """Where each parenthesis that opens is closed, by their places among the tokens."""
        found: dict[int, int] = {}
        opened: list[int] = []
        for at, token in enumerate(self.tokens):
            if token.kind == "(":
                opened.append(at)
            elif token.kind == ")" and opened:
                found[opened.pop()] = at
        return found

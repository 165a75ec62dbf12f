"""Texts of policies: wildcards `*` and `?`, and policy variables such as `${aws:username}`.

A wildcard in a variable's *value* is literal. A variable that has no value makes the answer unknown, unless the rest of
the text does not match anyway.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from owsgit.model.iam.context import EMPTY, Context

ARN_SEGMENTS = 6  # arn:partition:service:region:account:resource
TEXT_CHARACTERS_MAX = 2048
"""Of one pattern: what AWS takes for an ARN."""

PATTERNS_MAX = 8192
"""Compiled patterns that are kept: policies of one project share most of theirs."""

VALUES_MAX = 64
"""Values of a pattern's variables, mostly users, for which its expression is kept."""

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"([A-Za-z0-9-]+:[A-Za-z0-9/._:-]+)\s*(?:,\s*'([^']*)'\s*)?")
_LITERALS = ("*", "?", "$")


class PatternError(ValueError):
    """A text that is no pattern."""


@dataclass(frozen=True)
class Variable:
    """`${name}` or `${name, 'default'}`."""

    name: str  # lower case
    default: str | None


Part = str | Variable | tuple[str]
"""Text with wildcards, a variable, or (in a tuple) literal text."""


def parse(text: str, variables: bool) -> list[Part]:
    """The parts of a text. `variables`: whether `${...}` is one (not under Version 2008). Raises PatternError."""
    if len(text) > TEXT_CHARACTERS_MAX:
        raise PatternError(f"{len(text):,} characters; at most {TEXT_CHARACTERS_MAX:,} are taken")
    if not variables or "${" not in text:
        return [text]
    parts: list[Part] = []
    at = 0
    for match in _VARIABLE.finditer(text):
        parts.append(text[at : match.start()])
        at = match.end()
        if match[1] in _LITERALS:
            parts.append((match[1],))
            continue
        name = _NAME.fullmatch(match[1].strip())
        if name is None:
            raise PatternError(f"{match[0]} is not a policy variable: write ${{key}} or ${{key, 'default'}}")
        parts.append(Variable(name[1].lower(), name[2]))
    parts.append(text[at:])
    if "${" in "".join(part for part in parts if isinstance(part, str)):
        raise PatternError("a policy variable is not closed")
    return [part for part in parts if part != ""]


def _source(parts: "Iterable[Part]", values: "dict[Variable, str | None]", one: str) -> str:
    """A regular expression in which `one` is any character. A variable without a value is as wide as a wildcard.

    Between two wildcards, the first place where the text fits is the right one, so nothing is ever tried again (an
    atomic group): a pattern such as `*a*a*a*b` takes linear time, whatever it is matched with.
    """
    pieces = [""]  # the texts between wildcards
    for part in parts:
        if isinstance(part, str):
            for text in re.split(r"([*?])", part):
                if text == "*":
                    pieces.append("")
                else:
                    pieces[-1] += one if text == "?" else re.escape(text)
        elif isinstance(part, tuple):
            pieces[-1] += re.escape(part[0])
        elif (value := values[part]) is None:
            pieces.append("")
        else:
            pieces[-1] += re.escape(value)
    if len(pieces) == 1:
        return pieces[0]
    first, *middle, last = pieces
    return first + "".join(f"(?>{one}*?{piece})" for piece in middle if piece) + f"{one}*{last}"


class Pattern:
    """A text to match with. `source` gives its regular expression for given values of its variables."""

    def __init__(
        self, parts: list[Part], source: "Callable[[dict[Variable, str | None]], str]", flags: int = 0
    ) -> None:
        self.variables = [part for part in parts if isinstance(part, Variable)]
        self._source = source
        self._flags = flags | re.DOTALL
        self._by_values: dict[tuple[str | None, ...], re.Pattern[str]] = {}
        self.expression = source({}) if not self.variables else None
        """The regular expression, if it does not depend on the request."""

    @cached_property
    def _fixed(self) -> re.Pattern[str] | None:
        """Compiled when it is first asked for: a policy may have thousands that nobody ever asks for."""
        return re.compile(self.expression, self._flags) if self.expression is not None else None

    def match(self, value: str, context: Context = EMPTY) -> bool | None:
        """Whether `value` matches; None if that depends on a variable that has no value."""
        if self._fixed is not None:
            return self._fixed.fullmatch(value) is not None
        values = tuple(_value(variable, context) for variable in self.variables)
        compiled = self._by_values.get(values)
        if compiled is None:
            source = self._source(dict(zip(self.variables, values, strict=True)))
            if len(self._by_values) >= VALUES_MAX:
                self._by_values.clear()
            compiled = self._by_values[values] = re.compile(source, self._flags)
        matches = compiled.fullmatch(value) is not None
        return None if matches and None in values else matches


def _value(variable: Variable, context: Context) -> str | None:
    found = context.get(variable.name)
    if isinstance(found, tuple) and len(found) == 1:
        return found[0]
    return variable.default if found is None or found == () else None


@lru_cache(maxsize=PATTERNS_MAX)
def exact(text: str, variables: bool, *, ignore_case: bool = False) -> Pattern:
    """Matches the same text; wildcards are literal."""
    parts: list[Part] = [(part,) if isinstance(part, str) else part for part in parse(text, variables)]
    return Pattern(parts, lambda values: _source(parts, values, "."), re.IGNORECASE if ignore_case else 0)


@lru_cache(maxsize=PATTERNS_MAX)
def like(text: str, variables: bool) -> Pattern:
    """Matches with wildcards."""
    parts = parse(text, variables)
    return Pattern(parts, lambda values: _source(parts, values, "."))


@lru_cache(maxsize=PATTERNS_MAX)
def arn(text: str, variables: bool) -> Pattern:
    """Matches ARNs segment by segment: a wildcard stays within its segment; only the last may itself have colons.

    Raises PatternError for what is neither a whole ARN nor `*`.
    """
    if text == "*":
        return like(text, variables)
    parts = parse(text, variables)
    segments: list[list[Part]] = [[]]
    for part in parts:
        pieces = part.split(":", ARN_SEGMENTS - len(segments)) if isinstance(part, str) else [part]
        segments[-1].append(pieces[0])
        segments.extend([piece] for piece in pieces[1:])
    if (
        len(segments) != ARN_SEGMENTS
        or segments[0] != ["arn"]
        or segments[2] in ([], [""])
        or segments[5] in ([], [""])
    ):
        raise PatternError("not a whole ARN (arn:aws:service:region:account:resource) and not '*'")

    def source(values: "dict[Variable, str | None]") -> str:
        first = [_source(segment, values, "." if _unknown(segment, values) else "[^:]") for segment in segments[:-1]]
        return ":".join([*first, _source(segments[-1], values, ".")])

    return Pattern(parts, source)


def _unknown(parts: "Iterable[Part]", values: "dict[Variable, str | None]") -> bool:
    """Whether a part has no value: it could be anything then, also with colons in it."""
    return any(isinstance(part, Variable) and values[part] is None for part in parts)


@lru_cache(maxsize=PATTERNS_MAX)
def actions(texts: tuple[str, ...]) -> re.Pattern[str]:
    """Matches the actions that any of the patterns names; actions are case-insensitive."""
    return re.compile("|".join(_source([text], {}, ".") for text in texts), re.IGNORECASE)

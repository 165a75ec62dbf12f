"""The exception tree of owsgit.

Every error that a user may see is an `OwsgitError`: it carries `Problem`s, each of which names the value, the place
(file and JSON path) and the remedy. Errors that only one module raises live in that module, below one of these.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `message` says what, `file` and `path` where, `remedy` what to do about it."""

    message: str
    file: str = ""
    path: str = ""  # a JSON path such as $.routes['GET /'].function
    remedy: str = ""

    def __str__(self) -> str:
        where = " ".join(part for part in (self.file, self.path) if part)
        return f"{where}: {self.message}" if where else self.message

    def lines(self) -> list[str]:
        """The problem for a terminal: what and where, then the remedy."""
        return [str(self), *([f"  remedy: {self.remedy}"] if self.remedy else [])]


class OwsgitError(Exception):
    """Something that the user can be told and can act on. `exit_code` is what the command line answers with."""

    exit_code = 1

    def __init__(self, message: str, *, file: str = "", path: str = "", remedy: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(message, file, path, remedy),)
        super().__init__(message)

    def __str__(self) -> str:
        return "\n".join(line for problem in self.problems for line in problem.lines())


class InvalidError(OwsgitError):
    """Content that breaks the rules of the ledger: JSON, fields, references, trees."""

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> "InvalidError":
        found = tuple(problems)
        error = cls(found[0].message)
        error.problems = found
        return error


class RefusedError(OwsgitError):
    """A change that is not let in: a bad commit, a bad signature, a history that does not follow main."""


class NotAllowedError(RefusedError):
    """A change or a call that no policy allows, or that one denies."""


class UnavailableError(OwsgitError):
    """Something outside of us that is needed is not there: a node, a program, a sandbox, a port."""

    exit_code = 3

"""Works on tables and what comes of them, as bytes: from one process of a node to another.

They go through a pair of sockets that nobody else has, so pickle's trust in what it reads is in place. A table goes by
its name and a serial number: both sides have to mean the same.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

from owsgit.services.tables.catalog import Table


def dump(value: Any, serial_of: Callable[[str], int]) -> bytes:
    """`serial_of` is that of a table, by its name."""
    buffer = io.BytesIO()
    _Pickler(buffer, serial_of).dump(value)
    return buffer.getvalue()


def load(data: bytes, table_of: Callable[[str, int], Table]) -> Any:
    """`table_of` finds a table by name and serial, and may raise what it likes."""
    return _Unpickler(io.BytesIO(data), table_of).load()


class _Pickler(pickle.Pickler):
    def __init__(self, buffer: io.BytesIO, serial_of: Callable[[str], int]) -> None:
        super().__init__(buffer, pickle.HIGHEST_PROTOCOL)
        self._serial_of = serial_of

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is Table:
            return _table, (value.name, self._serial_of(value.name))
        if issubclass(kind, BaseException):  # many of them are made from something else than their args
            return _error, (kind, value.args), value.__dict__
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, buffer: io.BytesIO, table_of: Callable[[str, int], Table]) -> None:
        super().__init__(buffer)
        self._table_of = table_of

    def find_class(self, module: str, name: str) -> Any:
        if module == __name__ and name == _table.__name__:
            return self._table_of
        found = _FOUND.get((module, name))
        if found is None:
            found = _FOUND[module, name] = super().find_class(module, name)
        return found


_FOUND: dict[tuple[str, str], Any] = {}
"""What is looked up for every work: the classes of works and of errors."""


def _table(name: str, serial: int) -> Table:
    raise LookupError(f"the table {name} is found by who reads it")


def _error(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    error = kind.__new__(kind)
    error.args = args
    return error

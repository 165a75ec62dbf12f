"""What botocore's models say, made into functions once, as it is asked with every request: see readers.py, writers.py.

https://smithy.io/2.0/aws/protocols/index.html
"""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from botocore.model import ListShape, MapShape, Shape, StructureShape

Made = TypeVar("Made")


class ByShape(ABC, Generic[Made]):
    """What is made of a shape, once: shapes hold themselves, so it is made as it is asked for."""

    def __init__(self) -> None:
        self._made: dict[int, Made] = {}
        self._kept: list[Shape] = []  # so that ids stay those of these shapes

    def of(self, shape: Shape) -> Made:
        found = self._made.get(id(shape))
        if found is None:
            self._kept.append(shape)
            found = self._made[id(shape)] = self._make(shape)
        return found

    def _make(self, shape: Shape) -> Made:
        if isinstance(shape, StructureShape):
            return self._structure(shape)
        if isinstance(shape, ListShape):
            return self._list(shape)
        return self._map(shape) if isinstance(shape, MapShape) else self._scalar(shape)

    @abstractmethod
    def _structure(self, shape: StructureShape) -> Made: ...

    @abstractmethod
    def _list(self, shape: ListShape) -> Made: ...

    @abstractmethod
    def _map(self, shape: MapShape) -> Made: ...

    @abstractmethod
    def _scalar(self, shape: Shape) -> Made: ...

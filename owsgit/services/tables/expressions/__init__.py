"""Expressions of DynamoDB: conditions, filters, updates, projections and key conditions.

A text is parsed once into a tree and kept; what a request brings besides, its placeholders, is bound to the tree with
each request, which also finds what is wrong with both together. All errors are ValidationErrors, in DynamoDB's words
and in the order in which DynamoDB looks: syntax, parentheses, functions, reserved words, then placeholders, numbers and
types of operands. Sources: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.html and
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html#limits-expression-parameters
"""

from owsgit.services.tables.expressions.placeholders import Placeholders

__all__ = ["Placeholders"]

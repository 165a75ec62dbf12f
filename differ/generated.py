"""Random requests: an item is put, something is done to it or asked of it, and it is looked at again."""

import random
from collections.abc import Iterator
from typing import Any

Step = tuple[str, dict[str, Any]]
NAMES = ("a", "b", "m", "l", "s", "n", "g", "m.x", "m.y.z", "l[0]", "l[2].x", "none", "#p")
COMPARATORS = ("=", "<>", "<", "<=", ">", ">=")
OPERATORS = (
    "EQ", "NE", "IN", "LE", "LT", "GE", "GT", "BETWEEN", "NOT_NULL", "NULL", "CONTAINS", "NOT_CONTAINS", "BEGINS_WITH"
)  # fmt: skip
TYPES = ("S", "N", "B", "BOOL", "NULL", "SS", "NS", "L", "M")


class Generator:
    """The same requests for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def scenarios(self, count: int) -> Iterator[tuple[str, list[Step]]]:
        for number in range(count):
            kind = self._random.choice(
                (self._conditional, self._updating, self._querying, self._filtering, self._legacy)
            )
            key = {"pk": {"S": f"r{number}"}, "sk": {"S": self._random.choice("abc")}}
            yield f"generated {number} {kind.__name__[1:]}", list(kind(key))

    def _value(self, depth: int = 2) -> dict[str, Any]:
        pick = self._random
        kind = pick.choice(("S", "N", "S", "N", "BOOL", "NULL", "SS", "NS", "B", "L", "M")[: 11 if depth else 9])
        match kind:
            case "S":
                return {"S": pick.choice(("", "a", "ab", "abc", "b", "ä"))}
            case "N":
                return {"N": pick.choice(("0", "1", "2", "-1.5", "10", "1e2", "0.1", "3"))}
            case "B":
                return {"B": pick.choice((b"", b"a", b"ab"))}
            case "BOOL":
                return {"BOOL": pick.random() < 0.5}
            case "NULL":
                return {"NULL": True}
            case "SS":
                return {"SS": pick.sample(("a", "b", "c", "ab"), pick.randint(1, 3))}
            case "NS":
                return {"NS": pick.sample(("1", "2", "3.50", "0"), pick.randint(1, 3))}
            case "L":
                return {"L": [self._value(depth - 1) for _ in range(pick.randint(0, 3))]}
        return {"M": {name: self._value(depth - 1) for name in pick.sample(("x", "y", "z"), pick.randint(0, 3))}}

    def _item(self, key: dict[str, Any]) -> dict[str, Any]:
        pick = self._random
        item = {**key, **{name: self._value() for name in pick.sample(("a", "b", "m", "l", "s"), pick.randint(1, 5))}}
        if pick.random() < 0.5:
            item["n"] = {"N": str(pick.randint(-3, 12))}
        if pick.random() < 0.5:
            item["g"] = {"S": pick.choice(("x", "y"))}
        return item

    def _operand(self, values: dict[str, Any]) -> str:
        pick = self._random
        chance = pick.random()
        if chance < 0.45:
            return pick.choice(NAMES)
        if chance < 0.55:
            return f"size({pick.choice(NAMES)})"
        name = f":v{len(values)}"
        values[name] = self._value(1)
        return name

    def _condition(self, values: dict[str, Any], depth: int = 2) -> str:
        pick, operand = self._random, lambda: self._operand(values)
        chance = pick.random()
        if depth and chance < 0.3:
            joined = pick.choice((" AND ", " OR ")).join(self._condition(values, depth - 1) for _ in range(2))
            return joined if pick.random() < 0.5 else f"({joined})"
        if depth and chance < 0.4:
            return f"NOT {self._condition(values, depth - 1)}"
        match pick.randrange(8):
            case 0:
                return f"{pick.choice(('attribute_exists', 'attribute_not_exists'))}({pick.choice(NAMES)})"
            case 1:
                name = f":v{len(values)}"
                values[name] = {"S": pick.choice(TYPES)}
                return f"attribute_type({pick.choice(NAMES)}, {name})"
            case 2:
                return f"begins_with({operand()}, {operand()})"
            case 3:
                return f"contains({operand()}, {operand()})"
            case 4:
                return f"{operand()} BETWEEN {operand()} AND {operand()}"
            case 5:
                return f"{operand()} IN ({', '.join(operand() for _ in range(pick.randint(1, 3)))})"
        return f"{operand()} {pick.choice(COMPARATORS)} {operand()}"

    def _placeholders(self, values: dict[str, Any], *texts: str) -> dict[str, Any]:
        found: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
        if any("#p" in text for text in texts):
            found["ExpressionAttributeNames"] = {"#p": "b"}
        return found

    def _conditional(self, key: dict[str, Any]) -> Iterator[Step]:
        values: dict[str, Any] = {}
        text = self._condition(values)
        yield "PutItem", {"TableName": "whole", "Item": self._item(key)}
        asked = {"TableName": "whole", "ConditionExpression": text, **self._placeholders(values, text)}
        if self._random.random() < 0.5:
            yield "DeleteItem", {**asked, "Key": key, "ReturnValues": "ALL_OLD"}
        else:
            yield "PutItem", {**asked, "Item": key, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        yield "GetItem", {"TableName": "whole", "Key": key}

    def _clause(self, verb: str, values: dict[str, Any]) -> str:
        pick, path = self._random, self._random.choice(NAMES)
        if verb == "REMOVE":
            return path
        if verb in ("ADD", "DELETE"):
            name = f":v{len(values)}"
            values[name] = self._value(0)
            return f"{path} {name}"
        one, other = self._operand(values).removeprefix("size("), self._operand(values).removeprefix("size(")
        one, other = one.removesuffix(")"), other.removesuffix(")")
        form = pick.choice(("{1}", "{1}", "{1} + {2}", "{1} - {2}", "list_append({1}, {2})", "if_not_exists({0}, {1})"))
        return f"{path} = {form.format(pick.choice(NAMES), one, other)}"

    def _updating(self, key: dict[str, Any]) -> Iterator[Step]:
        pick = self._random
        values: dict[str, Any] = {}
        clauses = []
        for verb in pick.sample(("SET", "REMOVE", "ADD", "DELETE"), pick.choice((1, 1, 2))):
            parts = ", ".join(self._clause(verb, values) for _ in range(pick.choice((1, 1, 2))))
            clauses.append(f"{verb} {parts}")
        text = " ".join(clauses)
        if pick.random() < 0.8:
            yield "PutItem", {"TableName": "whole", "Item": self._item(key)}
        asked = {"UpdateExpression": text, **self._placeholders(values, text)}
        kind = pick.choice(("NONE", "ALL_NEW", "ALL_OLD", "UPDATED_NEW", "UPDATED_OLD"))
        yield "UpdateItem", {"TableName": "whole", "Key": key, "ReturnValues": kind, **asked}
        yield "GetItem", {"TableName": "whole", "Key": key}

    def _several(self, key: dict[str, Any]) -> Step:
        items = [{**self._item(key), "sk": {"S": sk}} for sk in ("a", "ab", "b", "c")]
        return "BatchWriteItem", {"RequestItems": {"whole": [{"PutRequest": {"Item": item}} for item in items]}}

    def _querying(self, key: dict[str, Any]) -> Iterator[Step]:
        pick = self._random
        yield self._several(key)
        for _ in range(3):
            values: dict[str, Any] = {":p": key["pk"]}
            local = pick.random() < 0.3
            name, ends = ("n", ("-2", "3", "8")) if local else ("sk", ("a", "b", "ab"))
            values |= {
                ":x": {"N" if local else "S": pick.choice(ends)},
                ":y": {"N" if local else "S": pick.choice(ends)},
            }
            form = pick.choice(
                (
                    f"{name} = :x",
                    f"{name} < :x",
                    f"{name} >= :x",
                    f"{name} BETWEEN :x AND :y",
                    f"begins_with({name}, :x)",
                    "",
                )
            )
            text = f"pk = :p AND {form}" if form else "pk = :p"
            values = {key: value for key, value in values.items() if key in text}
            asked: dict[str, Any] = {"ScanIndexForward": pick.random() < 0.5, "Limit": pick.randint(1, 5)}
            if local:
                asked["IndexName"] = "local"
            elif pick.random() < 0.5:
                asked["FilterExpression"] = self._condition(values, 1)
            texts = text, asked.get("FilterExpression", "")
            given = self._placeholders(values, *texts)
            yield "Query", {"TableName": "whole", "KeyConditionExpression": text, **asked, **given}

    def _filtering(self, key: dict[str, Any]) -> Iterator[Step]:
        yield self._several(key)
        values: dict[str, Any] = {}
        text = self._condition(values, 1)
        values[":p"] = key["pk"]
        asked = {"FilterExpression": f"pk = :p AND ({text})", **self._placeholders(values, text)}
        yield "Scan", {"TableName": "whole", **asked}

    def _legacy(self, key: dict[str, Any]) -> Iterator[Step]:
        pick = self._random
        yield "PutItem", {"TableName": "whole", "Item": self._item(key)}
        operator = pick.choice(
            (
                "EQ",
                "NE",
                "IN",
                "LE",
                "LT",
                "GE",
                "GT",
                "BETWEEN",
                "NOT_NULL",
                "NULL",
                "CONTAINS",
                "NOT_CONTAINS",
                "BEGINS_WITH",
            )
        )
        count = {"BETWEEN": 2, "IN": 2, "NOT_NULL": 0, "NULL": 0}.get(operator, 1)
        values = [self._value(1) for _ in range(count)]
        wanted = {"ComparisonOperator": operator, **({"AttributeValueList": values} if values else {})}
        changes: dict[str, Any] = {}
        for name in pick.sample(("a", "b", "s", "l", "n"), 2):
            action = pick.choice(("PUT", "ADD", "DELETE"))
            changes[name] = {"Action": action, **({"Value": self._value(0)} if pick.random() < 0.9 else {})}
        asked = {"Expected": {pick.choice(("a", "b", "none")): wanted}} if pick.random() < 0.6 else {}
        yield (
            "UpdateItem",
            {"TableName": "whole", "Key": key, "AttributeUpdates": changes, "ReturnValues": "ALL_NEW", **asked},
        )
        yield "GetItem", {"TableName": "whole", "Key": key}

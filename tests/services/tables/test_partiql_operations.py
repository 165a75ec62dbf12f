"""ExecuteStatement, BatchExecuteStatement and ExecuteTransaction, with a real engine."""

import base64
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from owsgit.services.tables.partiql_operations import TOKEN_INVALID, TOKEN_OTHER
from owsgit.services.tables.transactions import TWICE, CanceledError
from tests.services.tables.api import ARN, PLAIN, WHOLE, Tables, document

MISMATCH = "The provided key element does not match the schema"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    made = Tables(tmp_path_factory.mktemp("partiql"))
    made.add("whole", WHOLE)
    made.add("plain", PLAIN)
    pairs = [{"attributeName": name, "keyType": "HASH"} for name in ("g", "h")]
    made.add(
        "pairs",
        document(types={"g": "S", "h": "S"}, globalSecondaryIndexes=[{"indexName": "pairs", "keySchema": pairs}]),
    )
    yield made
    made.close()


@pytest.fixture
def tables(made: Tables) -> Tables:
    for item in made.call("Scan", TableName="whole")["Items"]:
        made.call("DeleteItem", TableName="whole", Key={name: item[name] for name in ("pk", "sk")})
    return made


def run(tables: Tables, text: str, *parameters: dict[str, Any], **more: Any) -> Any:
    if parameters:
        more["Parameters"] = list(parameters)
    return tables.call("ExecuteStatement", Statement=text, **more)


def ranges(tables: Tables, where: str, **more: Any) -> list[str]:
    return [item["sk"]["S"] for item in run(tables, f"SELECT sk FROM whole WHERE {where}", **more)["Items"]]


def get(tables: Tables, pk: str, sk: str = "1") -> Any:
    return tables.call("GetItem", TableName="whole", Key={"pk": {"S": pk}, "sk": {"S": sk}}).get("Item")


def test_items_are_inserted_once(tables: Tables) -> None:
    text = "INSERT INTO \"whole\" VALUE {'pk': ?, 'sk': '1', 'l': [1, <<'a'>>]}"
    assert run(tables, text, {"S": "a"}) == {"Items": []}
    assert get(tables, "a") == {"pk": {"S": "a"}, "sk": {"S": "1"}, "l": {"L": [{"N": "1"}, {"SS": ["a"]}]}}
    assert tables.refused("ExecuteStatement", Statement=text, Parameters=[{"S": "a"}]) == (
        "DuplicateItemException",
        "Duplicate primary key exists in table",
    )
    missing = "One or more parameter values were invalid: Missing the key sk in the item"
    assert tables.invalid("ExecuteStatement", Statement="INSERT INTO whole VALUE {'pk': 'b'}") == missing


def test_items_are_changed(tables: Tables) -> None:
    tables.put(pk="a", sk="1", x=1, l={"L": [{"S": "a"}, {"S": "b"}, {"S": "c"}]}, ss={"SS": ["a"]})
    where = "WHERE pk = 'a' AND sk = '1'"
    assert run(tables, f"UPDATE whole SET x = x + 1, y = ? REMOVE l[1] {where}", {"S": "new"}) == {"Items": []}
    assert run(
        tables, f"UPDATE whole SET ss = set_add(ss, <<'b'>>) SET l = list_append(l, [1]) {where} RETURNING ALL NEW *"
    )["Items"] == [
        {
            "pk": {"S": "a"},
            "sk": {"S": "1"},
            "x": {"N": "2"},
            "y": {"S": "new"},
            "l": {"L": [{"S": "a"}, {"S": "c"}, {"N": "1"}]},
            "ss": {"SS": ["a", "b"]},
        }
    ]
    assert run(tables, f"UPDATE whole SET x = 3 {where} AND y = 'new' RETURNING MODIFIED OLD *")["Items"] == [
        {"x": {"N": "2"}}
    ]
    assert run(tables, f"UPDATE whole REMOVE x {where} RETURNING MODIFIED NEW *")["Items"] == []
    assert run(tables, f"FROM whole {where} SET x = 1 RETURNING MODIFIED NEW *")["Items"] == [{"x": {"N": "1"}}]


WRONG_WRITES = {
    "condition": (
        "UPDATE whole SET x = 1 WHERE pk = 'a' AND sk = '1' AND x = 9",
        "ConditionalCheckFailedException",
        "The conditional request failed",
    ),
    "no-item": (
        "UPDATE whole SET x = 1 WHERE pk = 'z' AND sk = '1'",
        "ConditionalCheckFailedException",
        "The conditional request failed",
    ),
    "delete": (
        "DELETE FROM whole WHERE pk = 'a' AND sk = '1' AND x = 9",
        "ConditionalCheckFailedException",
        "The conditional request failed",
    ),
    "half-a-key": (
        "UPDATE whole SET x = 1 WHERE pk = 'a'",
        "ValidationException",
        "Where clause does not contain a mandatory equality on all key attributes",
    ),
    "no-key": (
        "DELETE FROM whole",
        "ValidationException",
        "Where clause does not contain a mandatory equality on all key attributes",
    ),
    "two": (
        "DELETE FROM whole WHERE pk = 'a' AND sk = '1' AND pk = 'b'",
        "ValidationException",
        "Multiple conditions on same key pk. Only single item Update/Insert/Delete are supported",
    ),
    "type": ("DELETE FROM whole WHERE pk = 'a' AND sk = 1", "ValidationException", MISMATCH),
    "key": (
        "UPDATE whole SET sk = '2' WHERE pk = 'a' AND sk = '1'",
        "ValidationException",
        "One or more parameter values were invalid: Cannot update attribute sk. This attribute is part of the key",
    ),
    "path": (
        "UPDATE whole SET new[0] = '2' WHERE pk = 'a' AND sk = '1'",
        "ValidationException",
        "The document path provided in the update expression is invalid for update",
    ),
    "set": (
        "UPDATE whole SET x = set_add(x, <<'x'>>) WHERE pk = 'a' AND sk = '1'",
        "ValidationException",
        "An operand in the update expression has an incorrect data type",
    ),
    "table": ("DELETE FROM nothing WHERE pk = 'a'", "ResourceNotFoundException", "Requested resource not found"),
    "exists": (
        "EXISTS(SELECT * FROM whole WHERE pk = 'a' AND sk = '1' AND x = 1)",
        "ValidationException",
        "EXISTS can only be used in ExecuteTransaction write requests.",
    ),
}


@pytest.mark.parametrize(("text", "code", "message"), WRONG_WRITES.values(), ids=WRONG_WRITES)
def test_wrong_writes_change_nothing(tables: Tables, text: str, code: str, message: str) -> None:
    item = tables.put(pk="a", sk="1", x=1)
    assert tables.refused("ExecuteStatement", Statement=text) == (code, message)
    assert tables.call("Scan", TableName="whole")["Items"] == [item]


def test_items_are_deleted(tables: Tables) -> None:
    item = tables.put(pk="a", sk="1", x=1)
    text = "DELETE FROM whole WHERE (pk = 'a' AND sk = '1') AND x = 1 RETURNING ALL OLD *"
    assert run(tables, text)["Items"] == [item]
    assert run(tables, text)["Items"] == []


def test_what_is_wrong_with_parameters_comes_first(tables: Tables) -> None:
    twice = "One or more parameter values were invalid: Input collection [a, a] contains duplicates."
    assert tables.invalid("ExecuteStatement", Statement="UPDATE", Parameters=[{"SS": ["a", "a"]}]) == twice


def test_items_are_selected(tables: Tables) -> None:
    for pk in "op":
        for sk in "123":
            tables.put(pk=pk, sk=sk, m={"M": {"x": {"S": sk}}}, g="g", n=int(sk))
    assert run(tables, "SELECT m.x, nope FROM whole WHERE pk = 'o' AND sk > '1' AND m.x <> '3'")["Items"] == [
        {"x": {"S": "2"}}
    ]
    assert ranges(tables, "pk = 'o' AND sk IN ['1', '3', '4']") == ["1", "3"]
    assert sorted(ranges(tables, "pk > 'o'")) == ["1", "2", "3"]
    assert sorted(ranges(tables, "pk = 'o' AND NOT sk = '1' OR pk = 'o' AND sk = '2'")) == ["2", "3"]
    assert len(run(tables, "SELECT * FROM whole")["Items"]) == 6
    assert ranges(tables, "pk = 'o' ORDER BY sk DESC") == ["3", "2", "1"]
    assert ranges(tables, "pk = 'o' ORDER BY pk") == ["3", "2", "1"]
    ordered = run(tables, "SELECT pk, sk FROM whole WHERE pk IN ['o', 'p'] ORDER BY pk DESC, sk ASC")["Items"]
    assert [item["pk"]["S"] + item["sk"]["S"] for item in ordered] == ["p1", "p2", "p3", "o1", "o2", "o3"]
    assert len(run(tables, "SELECT * FROM whole.\"global\" WHERE g = 'g' AND n < 3")["Items"]) == 4
    assert run(tables, "SELECT * FROM whole.\"local\" WHERE pk = 'o' AND n = 2")["Items"] == [
        {"pk": {"S": "o"}, "sk": {"S": "2"}, "n": {"N": "2"}}
    ]
    assert run(tables, "SELECT m FROM whole.\"local\" WHERE pk = 'o' AND n = 2")["Items"] == [
        {"m": {"M": {"x": {"S": "2"}}}}
    ]
    assert (
        run(tables, "SELECT sk FROM whole.\"local\" WHERE m.x = '2'")["Items"] == []
    )  # filters see what the index shows
    used = run(tables, "SELECT * FROM whole WHERE pk = 'o'", ReturnConsumedCapacity="TOTAL", ConsistentRead=True)
    assert used["ConsumedCapacity"] == {"TableName": "whole", "CapacityUnits": 1.0}


NOT_SHOWN = "One or more parameter values were invalid: Secondary index narrow does not project one or more filter attributes: [x]"
WRONG_READS = {
    "index": ("SELECT * FROM whole.nothing WHERE pk = 'a'", {}, "The table does not have the specified index"),
    "consistent": (
        'SELECT * FROM whole."global"',
        {"ConsistentRead": True},
        "Strongly consistent read is not supported on Global Secondary Indexes",
    ),
    "filter": ("SELECT pk FROM whole.narrow WHERE g = 'g' AND x = 1", {}, NOT_SHOWN),
    "columns": (
        "SELECT x, pk, y FROM whole.narrow",
        {},
        "One or more parameter values were invalid: Global secondary index narrow does not project [x, y]",
    ),
    "pairs": (
        "SELECT * FROM pairs.pairs WHERE g = 5",
        {},
        "PartiQL statements cannot be executed on tables with multi-attribute HASH keys or multi-attribute RANGE keys.",
    ),
    "order-alone": (
        "SELECT * FROM whole ORDER BY sk",
        {},
        "Must have WHERE clause in the statement when using ORDER BY clause.",
    ),
    "order-other": (
        "SELECT * FROM whole WHERE pk = 'a' ORDER BY x",
        {},
        "Attribute x in ORDER BY clause must be part of the primary key",
    ),
    "order-scan": (
        "SELECT * FROM whole WHERE pk > 'a' ORDER BY sk",
        {},
        "Must have at least one non-optional hash key condition in WHERE clause when using ORDER BY clause.",
    ),
    "order-hash": (
        "SELECT * FROM whole WHERE pk IN ['a', 'b'] ORDER BY sk",
        {},
        "Must have hash key in ORDER BY clause when more than one hash key condition specified in WHERE clause.",
    ),
    "token": ("SELECT * FROM whole", {"NextToken": "nonsense"}, TOKEN_INVALID),
}


@pytest.mark.parametrize(("text", "more", "message"), WRONG_READS.values(), ids=WRONG_READS)
def test_wrong_reads(tables: Tables, text: str, more: dict[str, Any], message: str) -> None:
    assert tables.invalid("ExecuteStatement", Statement=text, **more) == message


@pytest.mark.parametrize(
    "where", ["pk IN ['o', 'p'] ORDER BY pk DESC", "pk > 'a'", "pk = 'o' OR pk = 'p' AND x IS MISSING"]
)
def test_pages(tables: Tables, where: str) -> None:
    for pk in "op":
        for sk in "123":
            tables.put(pk=pk, sk=sk)
    text = f"SELECT pk, sk FROM whole WHERE {where}"
    found: list[Any] = []
    more: dict[str, Any] = {}
    while True:
        page = run(tables, text, Limit=2, **more)
        found += page["Items"]
        assert len(page["Items"]) <= 2
        if "NextToken" not in page:
            break
        more = {"NextToken": page["NextToken"]}
    assert found == run(tables, text)["Items"]
    assert len(found) == 6
    other = "SELECT sk FROM whole WHERE pk = 'o'"
    assert tables.invalid("ExecuteStatement", Statement=other, **more) == TOKEN_OTHER


def forged(token: str, place: int, after: Any) -> str:
    digest, _, _ = orjson.loads(base64.urlsafe_b64decode(token))
    key = base64.b64encode(orjson.dumps(after)).decode()
    return base64.urlsafe_b64encode(orjson.dumps([digest, place, key])).decode()


def test_forged_tokens_lead_nowhere_else(tables: Tables) -> None:
    for sk in "123":
        tables.put(pk="o", sk=sk)
    text = "SELECT * FROM whole WHERE pk = 'o'"
    token = run(tables, text, Limit=1)["NextToken"]
    for place, after in (
        (0, {"pk": {"S": "p"}, "sk": {"S": "1"}}),
        (1, {"pk": {"S": "o"}, "sk": {"S": "1"}}),
        (-1, {"pk": {"S": "o"}, "sk": {"S": "1"}}),
        (0, {"pk": {"S": 5}, "sk": {"S": "1"}}),
        (0, {"pk": {"B": "x"}, "sk": {"S": "1"}}),
        (0, {"pk": ["o"]}),
        (0, ["x"]),
        (0, 5),
    ):
        tables.invalid("ExecuteStatement", Statement=text, NextToken=forged(token, place, after))


def batch(tables: Tables, *texts: str, **more: Any) -> Any:
    return tables.call("BatchExecuteStatement", Statements=[{"Statement": text} for text in texts], **more)


def test_a_batch_reads(tables: Tables) -> None:
    tables.put(pk="a", sk="1", x=1)
    key_only = {
        "Error": {
            "Code": "ValidationError",
            "Message": "Select statements within BatchExecuteStatement must specify the primary key in the where clause.",
        }
    }
    found = batch(
        tables,
        "SELECT x FROM whole WHERE pk IN ['a'] AND sk = '1'",
        "SELECT * FROM whole WHERE pk = 'b' AND sk = '1'",
        "SELECT * FROM whole WHERE pk = 'a'",
        "SELECT * FROM whole.\"global\" WHERE pk = 'a' AND sk = '1'",
        "SLECT",
        "SELECT * FROM nothing WHERE pk = 'a'",
        "SELECT * FROM pairs.pairs WHERE pk = 'a'",
        ReturnConsumedCapacity="TOTAL",
    )
    refused = (
        "PartiQL statements cannot be executed on tables with multi-attribute HASH keys or multi-attribute RANGE keys."
    )
    assert found["Responses"] == [
        {"TableName": "whole", "Item": {"x": {"N": "1"}}},
        {"TableName": "whole"},
        key_only,
        key_only,
        {
            "Error": {
                "Code": "ValidationError",
                "Message": "Statement wasn't well formed, can't be processed: Expected data manipulation",
            }
        },
        {"Error": {"Code": "ResourceNotFound", "Message": "Requested resource not found"}},
        {"Error": {"Code": "ValidationError", "Message": refused}},
    ]
    assert found["ConsumedCapacity"][0] == {"TableName": "whole", "CapacityUnits": 1.0}


def test_a_batch_writes(tables: Tables) -> None:
    item = tables.put(pk="a", sk="1", x=1)
    statements = [
        {"Statement": "INSERT INTO whole VALUE {'pk': ?, 'sk': '1'}", "Parameters": [{"S": "a"}]},
        {
            "Statement": "UPDATE whole SET x = 2 WHERE pk = 'a' AND sk = '1' AND x = 9",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        },
        {"Statement": "DELETE FROM whole WHERE pk = 'a' AND sk = '1' AND x = 1 RETURNING ALL OLD *"},
        {"Statement": "UPDATE whole SET x = 2 WHERE pk = 'a'"},
    ]
    found = tables.call("BatchExecuteStatement", Statements=statements)["Responses"]
    assert found[0] == {
        "Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"},
        "TableName": "whole",
    }
    assert found[1] == {
        "Error": {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed", "Item": item},
        "TableName": "whole",
    }
    assert found[2] == {"TableName": "whole", "Item": item}
    assert found[3]["Error"]["Code"] == "ValidationError"
    assert "TableName" not in found[3]


def transact(tables: Tables, *texts: str, **more: Any) -> Any:
    return tables.call("ExecuteTransaction", TransactStatements=[{"Statement": text} for text in texts], **more)


def canceled(tables: Tables, *texts: str) -> list[Any]:
    with pytest.raises(CanceledError) as caught:
        transact(tables, *texts)
    reasons: list[Any] = caught.value.fields["CancellationReasons"]
    return reasons


def test_a_transaction_reads(tables: Tables) -> None:
    tables.put(pk="a", sk="1", x=1)
    found = transact(
        tables, "SELECT x FROM whole WHERE pk = 'a' AND sk = '1'", "SELECT * FROM whole WHERE pk = 'b' AND sk = '1'"
    )
    assert found == {"Responses": [{"Item": {"x": {"N": "1"}}}, {}]}
    reasons = canceled(
        tables, "SELECT x FROM whole WHERE pk = 'a' AND sk = '1'", "SELECT * FROM whole WHERE pk = 1 AND sk = '1'"
    )
    assert reasons == [{"Code": "None"}, {"Code": "ValidationError", "Message": MISMATCH}]


def test_a_transaction_writes_everything_or_nothing(tables: Tables) -> None:
    tables.put(pk="a", sk="1", x=1)
    unless = "EXISTS(SELECT * FROM whole WHERE pk = 'a' AND sk = '1' AND y IS MISSING)"
    insert = "INSERT INTO whole VALUE {'pk': 'b', 'sk': '1'}"
    assert transact(tables, unless, insert, ReturnConsumedCapacity="TOTAL") == {
        "Responses": [],
        "ConsumedCapacity": [{"TableName": "whole", "CapacityUnits": 4.0, "WriteCapacityUnits": 4.0}],
    }
    update = "UPDATE whole SET y = 1 WHERE pk = 'a' AND sk = '1'"
    assert canceled(tables, update, insert) == [
        {"Code": "None"},
        {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"},
    ]
    assert get(tables, "a") == {"pk": {"S": "a"}, "sk": {"S": "1"}, "x": {"N": "1"}}
    transact(tables, update)
    delete = "DELETE FROM whole WHERE pk = 'b' AND sk = '1'"
    assert [reason["Code"] for reason in canceled(tables, unless, delete)] == ["ConditionalCheckFailed", "None"]
    assert [reason["Code"] for reason in canceled(tables, delete, "DELETE FROM nothing WHERE pk = 'b'")] == [
        "None",
        "ResourceNotFound",
    ]
    reasons = canceled(
        tables, "UPDATE whole SET y = 1 WHERE pk = 'a'", "UPDATE whole SET y = 1 WHERE pk = 'a' AND sk = 1", delete
    )
    assert [reason.get("Message") for reason in reasons] == [MISMATCH, MISMATCH, None]


def test_a_transaction_again(tables: Tables) -> None:
    tables.put(pk="a", sk="1", x=1)
    update = "UPDATE whole SET x = x + 1 WHERE pk = 'a' AND sk = '1'"
    again = {"ClientRequestToken": "once", "ReturnConsumedCapacity": "TOTAL"}
    assert "WriteCapacityUnits" in transact(tables, update, **again)["ConsumedCapacity"][0]
    assert transact(tables, update, **again)["ConsumedCapacity"][0]["ReadCapacityUnits"] == 2.0
    assert get(tables, "a")["x"] == {"N": "2"}
    other = "UPDATE whole SET x = 9 WHERE pk = 'a' AND sk = '1'"
    code, _ = tables.refused("ExecuteTransaction", TransactStatements=[{"Statement": other}], ClientRequestToken="once")
    assert code == "IdempotentParameterMismatchException"


SELECT = "SELECT * FROM whole WHERE pk = 'a' AND sk = '1'"
FIRST = "Validation failed in TransactStatements[0]: "
KEY_ONLY = f"{FIRST}Select statements within ExecuteTransaction must specify the primary key in the where clause."
WRONG_TRANSACTIONS = {
    "syntax": (
        ["SELECT * FROM whole WHERE"],
        f"{FIRST}Statement wasn't well formed, can't be processed: Unexpected term",
    ),
    "returning": (
        ["DELETE FROM whole WHERE pk = 'a' AND sk = '1' RETURNING ALL OLD *"],
        f"{FIRST}RETURNING clause is not supported in ExecuteTransaction.",
    ),
    "index": (
        ["SELECT * FROM whole.\"global\" WHERE g = 'x'"],
        f"{FIRST}Reads on indices are not supported within transactions.",
    ),
    "more": ([f"{SELECT} AND x = 1"], KEY_ONLY),
    "less": (["SELECT * FROM whole WHERE pk = 'a'"], KEY_ONLY),
    "overlapping": (
        ["SELECT * FROM whole WHERE pk IN ['a', 'a'] AND sk = '1'"],
        f"{FIRST}Overlapping conditions with range keys are not supported in where clause",
    ),
    "exists": ([f"EXISTS({SELECT})"], f"{FIRST}EXISTS() must contain a single item read with additional condition"),
    "mixed": (
        [SELECT, "DELETE FROM whole WHERE pk = 'a' AND sk = '2'"],
        "ExecuteTransaction API does not support both read and write operations in the same request.",
    ),
    "twice": ([SELECT, SELECT], TWICE),
    "twice-written": ([f"EXISTS({SELECT} AND x = 1)", "DELETE FROM whole WHERE pk = 'a' AND sk = '1'"], TWICE),
}


@pytest.mark.parametrize(("texts", "message"), WRONG_TRANSACTIONS.values(), ids=WRONG_TRANSACTIONS)
def test_wrong_transactions(tables: Tables, texts: list[str], message: str) -> None:
    statements = [{"Statement": text} for text in texts]
    assert tables.invalid("ExecuteTransaction", TransactStatements=statements) == message


def test_what_statements_need(tables: Tables) -> None:
    def needs(operation: str, **parameters: Any) -> list[Any]:
        return list(tables.api.needs(operation, parameters))

    [need] = needs(
        "ExecuteStatement", Statement="SELECT x FROM whole.\"global\" WHERE g IN ['a', ?]", Parameters=[{"S": "b"}]
    )
    assert (need.action, need.arn) == ("dynamodb:PartiQLSelect", f"{ARN}whole/index/global")
    assert need.context == {
        "dynamodb:Attributes": ("g", "x"),
        "dynamodb:LeadingKeys": ("a", "b"),
        "dynamodb:FirstPartitionKeyValues": ("a", "b"),
        "dynamodb:FullTableScan": "false",
        "dynamodb:Select": "SPECIFIC_ATTRIBUTES",
    }
    [need] = needs("ExecuteStatement", Statement="SELECT * FROM whole WHERE x = 1")
    assert need.context["dynamodb:FullTableScan"] == "true"
    assert "dynamodb:LeadingKeys" not in need.context
    statements = [
        {"Statement": text}
        for text in (
            "INSERT INTO whole VALUE {'pk': 'a', 'sk': '1'}",
            "UPDATE whole SET x = y WHERE pk = 'a' AND sk = '2'",
            "DELETE FROM whole WHERE pk = 'a' AND sk = '3' AND pk = 'b'",
            "EXISTS(SELECT * FROM whole WHERE pk = 'a' AND sk = '4' AND x = 1)",
            "nonsense",
        )
    ]
    found = needs("ExecuteTransaction", TransactStatements=statements)
    assert [need.action.removeprefix("dynamodb:PartiQL") for need in found] == ["Insert", "Update", "Delete", "Select"]
    assert [need.context.get("dynamodb:LeadingKeys") for need in found] == [("a",), ("a",), None, ("a",)]
    assert found[1].context["dynamodb:Attributes"] == ("pk", "sk", "x", "y")
    assert found[1].context["dynamodb:ReturnValues"] == "NONE"
    assert found[1].context["dynamodb:EnclosingOperation"] == "ExecuteTransaction"
    assert len(needs("BatchExecuteStatement", Statements=statements)) == 4

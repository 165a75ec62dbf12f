"""Tables, as DynamoDB has them: what a table is, how its items are kept, and the API to them."""

from owsgit.model.resource import Actions, Kind, Passing
from owsgit.model.service import Service
from owsgit.services.tables.spec import TableSpec

FOLDER = "data/tables"
"""Where the embedded engine's files lie, below the home of a node."""

KIND = Kind(
    "table",
    "tables",
    TableSpec,
    "arn:aws:dynamodb:{region}:{account}:table/{name}",
    Actions(create="dynamodb:CreateTable", update="dynamodb:UpdateTable", delete="dynamodb:DeleteTable"),
    # what feeds a function from a table reads its stream
    passes=Passing("dynamodb:GetRecords", arn="arn:aws:dynamodb:{region}:{account}:table/{name}/stream/*"),
    # what the API asks for: in policies these names mean what they mean at AWS
    calls=(
        "dynamodb:BatchGetItem",
        "dynamodb:BatchWriteItem",
        "dynamodb:ConditionCheckItem",
        "dynamodb:DeleteItem",
        "dynamodb:DescribeContinuousBackups",
        "dynamodb:DescribeEndpoints",
        "dynamodb:DescribeLimits",
        "dynamodb:DescribeStream",
        "dynamodb:DescribeTable",
        "dynamodb:DescribeTimeToLive",
        "dynamodb:GetItem",
        "dynamodb:GetRecords",
        "dynamodb:GetShardIterator",
        "dynamodb:ListStreams",
        "dynamodb:ListTables",
        "dynamodb:ListTagsOfResource",
        "dynamodb:PartiQLDelete",
        "dynamodb:PartiQLInsert",
        "dynamodb:PartiQLSelect",
        "dynamodb:PartiQLUpdate",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:Scan",
        "dynamodb:UpdateItem",
    ),
)

SERVICE = Service(KIND, "owsgit.services.tables.handler:TableHandler")

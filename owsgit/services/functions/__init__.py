"""Serverless functions (AWS Lambda): what a function is, and how it is made to run."""

from owsgit.model.resource import Actions, Kind
from owsgit.model.service import Service
from owsgit.services.functions.spec import FunctionSpec

KIND = Kind(
    "function",
    "functions",
    FunctionSpec,
    "arn:aws:lambda:{region}:{account}:function:{name}",
    Actions(
        create="lambda:CreateFunction",
        update="lambda:UpdateFunctionConfiguration",
        delete="lambda:DeleteFunction",
        code="lambda:UpdateFunctionCode",
    ),
    has_files=True,
)

SERVICE = Service(KIND, "owsgit.services.functions.handler:FunctionHandler")

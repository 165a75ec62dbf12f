"""Serverless functions (AWS Lambda): what a function is, and how it is made to run."""

from types import MappingProxyType

from owsgit.model.resource import Actions, FieldActions, Kind, Passing
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
        fields=MappingProxyType(
            {
                "policy": FieldActions("lambda:AddPermission", "lambda:RemovePermission"),
                "package": FieldActions("lambda:UpdateFunctionCode", "lambda:UpdateFunctionCode"),
                "assets": FieldActions("lambda:UpdateFunctionCode", "lambda:UpdateFunctionCode"),
            }
        ),
    ),
    has_files=True,
    passes=Passing("lambda:AddPermission", service_key="lambda:Principal"),
    principal="lambda.amazonaws.com",
    calls=(
        "lambda:InvokeFunction",
        "lambda:ListFunctions",
        "lambda:GetFunction",
        "lambda:GetFunctionConfiguration",
        "lambda:ListVersionsByFunction",
        "lambda:GetFunctionCodeSigningConfig",
        "logs:GetLogEvents",
        "lambda:GetFunctionEventInvokeConfig",
        "lambda:DeleteFunctionEventInvokeConfig",
    ),
    condition_keys=MappingProxyType(
        {
            "lambda:Runtime": lambda spec: [spec.runtime],
            "lambda:Handler": lambda spec: [spec.handler],
            "lambda:MemorySize": lambda spec: [str(spec.memory_size)],
            "lambda:Timeout": lambda spec: [str(spec.timeout)],
        }
    ),
)

SERVICE = Service(KIND, "owsgit.services.functions.handler:FunctionHandler")

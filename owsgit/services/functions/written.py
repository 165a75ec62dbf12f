"""What Lambda's API would change, were functions not configured by commits.

Each such operation is answered with the file to commit instead.
"""

import re
from collections.abc import Mapping
from typing import Any

from owsgit.aws.api import ServiceError

FUNCTION = "functions/{name}/function.json"

WRITES: Mapping[str, tuple[str, str]] = {
    "CreateFunction": (FUNCTION, "with the code beside it"),
    "UpdateFunctionCode": ("functions/{name}", "the code lies in that folder"),
    "UpdateFunctionConfiguration": (FUNCTION, ""),
    "DeleteFunction": ("functions/{name}", "remove that folder: git rm -r"),
    "AddPermission": (FUNCTION, "the field policy"),
    "RemovePermission": (FUNCTION, "the field policy"),
    "PutResourcePolicy": (FUNCTION, "the field policy"),
    "DeleteResourcePolicy": (FUNCTION, "the field policy"),
    "PublishVersion": (FUNCTION, "every commit is a version already; the field aliases names those that are called"),
    "CreateAlias": (FUNCTION, "the field aliases"),
    "UpdateAlias": (FUNCTION, "the field aliases"),
    "DeleteAlias": (FUNCTION, "the field aliases"),
    "PutFunctionConcurrency": (FUNCTION, "the field reservedConcurrency"),
    "DeleteFunctionConcurrency": (FUNCTION, "the field reservedConcurrency"),
    "PutProvisionedConcurrencyConfig": (FUNCTION, "the field provisionedConcurrency"),
    "DeleteProvisionedConcurrencyConfig": (FUNCTION, "the field provisionedConcurrency"),
    "PutFunctionEventInvokeConfig": (FUNCTION, "the field asyncInvoke"),
    "UpdateFunctionEventInvokeConfig": (FUNCTION, "the field asyncInvoke"),
    "DeleteFunctionEventInvokeConfig": (FUNCTION, "the field asyncInvoke"),
    "PutRuntimeManagementConfig": (FUNCTION, "the field runtime"),
    "CreateFunctionUrlConfig": ("gateways/{name}.json", "a gateway with a route to the function"),
    "UpdateFunctionUrlConfig": ("gateways/{name}.json", "a gateway with a route to the function"),
    "DeleteFunctionUrlConfig": ("gateways/{name}.json", "a gateway with a route to the function"),
    "PublishLayerVersion": ("layers/{name}/layer.json", "with the files beside it"),
    "DeleteLayerVersion": ("layers/{name}", "remove that folder: git rm -r"),
}
"""By operation: the file, and what about it."""

_NAMED = re.compile(r"(?:[^/]*\b(?:function|layer):)?(?P<name>[A-Za-z0-9_.-]{1,64})(?::[^/:]*)?")


def refusal(operation: str, parameters: Mapping[str, Any], *, committed: bool = True) -> ServiceError:
    """The answer to one of WRITES. Parameters have AWS's names. `committed`: what runs is what commits say, and not
    what a working tree does."""
    file, what = WRITES[operation]
    named = parameters.get("LayerName" if "Layer" in operation else "FunctionName")
    match = _NAMED.fullmatch(str(named)) if named else None
    name = match["name"] if match else "NAME"
    also = f" ({what})" if what else ""
    place = file.format(name=name) + also
    if committed:
        message = (
            f"{operation} changes nothing here: what runs is what the ledger says, in signed commits. "
            f"Commit {place} and push it."
        )
    else:
        message = (
            f"{operation} is not built for the working tree: edit {place} there, which is applied when it is saved."
        )
    return ServiceError("InvalidParameterValueException", message, fields={"Type": "User"})

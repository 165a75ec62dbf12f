"""Parameters of Lambda's operations that change functions, as changes of a function's file: from what it says to what
it is to say. Files of `owsgit up` only: on nodes, commits change functions.

What the file has no field for is refused by its name, unless it says what is so here anyway.
https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html and its neighbours
"""

import platform
import re
from collections.abc import Mapping
from typing import Any

from owsgit.aws.api import ServiceError
from owsgit.model.errors import InvalidError, Problem
from owsgit.model.names import Scope
from owsgit.services.functions.naming import invalid

Document = dict[str, Any]
Parameters = Mapping[str, Any]
"""By AWS's names."""

PACKAGE = "code.zip"
"""A deployment package that cannot lie unpacked in the working tree."""

_PLAIN = {
    "Runtime": "runtime",
    "Handler": "handler",
    "Description": "description",
    "Timeout": "timeout",
    "MemorySize": "memorySize",
}
"""Parameters that stand in the file as they are given."""

_FIELDS = {"asyncInvoke": "DeadLetterConfig", "logging": "LoggingConfig", "image": "ImageUri", "package": "ZipFile"}
"""Fields that their parameters call otherwise."""

_COMMITS = "every commit is a version here: name one by an alias, in the field aliases"
_S3 = "code is given as ZipFile: there is no S3 to fetch it from"

_SAME: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "Publish": ((False,), _COMMITS),
    "PublishTo": ((), _COMMITS),
    "DryRun": ((False,), "what is valid is written: leave it out"),
    "VpcConfig": (
        ({}, {"SubnetIds": [], "SecurityGroupIds": []}, {"SubnetIds": []}, {"SecurityGroupIds": []}),
        "there is no VPC: what a function reaches says the field network of its file",
    ),
    "KMSKeyArn": (("",), "variables are not encrypted: secrets are, in secrets/NAME.json and the field secrets"),
    "SourceKMSKeyArn": (("",), "code is not encrypted"),
    "TracingConfig": (({}, {"Mode": "PassThrough"}), "there is no X-Ray: leave it out, or say PassThrough"),
    "Tags": (({},), "functions have no tags: leave it out"),
    "FileSystemConfigs": (([],), "there is no EFS"),
    "CodeSigningConfigArn": (("",), "code is signed with the commit that it is part of"),
    "SnapStart": (({}, {"ApplyOn": "None"}), "there are no snapshots: workers start in milliseconds without"),
    "S3Bucket": ((), _S3),
    "S3Key": ((), _S3),
    "S3ObjectVersion": ((), _S3),
    "S3ObjectStorageMode": ((), _S3),
}
"""Parameters without a field: the values that say what is so anyway, and why others are refused."""


def refuse(given: Parameters, taken: frozenset[str]) -> None:
    """Raises ServiceError for the first parameter that would be dropped otherwise. `taken` are looked at elsewhere."""
    for name, value in given.items():
        if name in taken:
            continue
        if name not in _SAME:
            raise invalid(f"{name} is not built in owsgit: leave it out")
        harmless, why = _SAME[name]
        if value not in harmless:
            raise invalid(f"{name}: {why}")


CONFIGURATION = frozenset(
    {*_PLAIN, "Role", "Environment", "EphemeralStorage", "Layers", "DeadLetterConfig", "LoggingConfig", "ImageConfig"}
)
"""Parameters that `configured` takes."""


def created(given: Parameters, scope: Scope, name: str) -> Document:
    """The file of a function, but for its code, from CreateFunction's parameters. Raises ServiceError."""
    code, package_type = given["Code"], given.get("PackageType", "Zip")
    if package_type not in ("Zip", "Image"):
        raise invalid(f"PackageType: {package_type:.100} is neither Zip nor Image")
    if package_type == "Image":
        if zipped := sorted({"Runtime", "Handler", "Layers"} & set(given)):
            raise invalid(f"{zipped[0]}: a function that is an image (PackageType) has none: leave it out")
        if "ImageUri" not in code:
            raise invalid("Code: the ImageUri is missing, as PackageType is Image")
        document: Document = {"runtime": "container", "image": {"uri": code["ImageUri"]}}
    else:
        if not {"Runtime", "Handler"} <= set(given):
            raise invalid(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages."
            )
        if "ZipFile" not in code:
            raise invalid("Code: the ZipFile is missing")
        document = {"runtime": given["Runtime"], "handler": given["Handler"]}
    return configured(document, given, scope, name)


def configured(document: Document, given: Parameters, scope: Scope, name: str) -> Document:
    """By UpdateFunctionConfiguration's parameters, of which CreateFunction has the same. Raises ServiceError."""
    found = dict(document)
    for parameter, field in _PLAIN.items():
        if parameter in given:
            _set(found, field, given[parameter])
    if "Role" in given:
        found["role"] = role(given["Role"], scope)
    if "Environment" in given:
        _set(found, "environment", given["Environment"].get("Variables", {}))
    if "EphemeralStorage" in given:
        found["ephemeralStorage"] = given["EphemeralStorage"]["Size"]
    if "Layers" in given:
        _set(found, "layers", [layer(arn, scope) for arn in given["Layers"]])
    if "DeadLetterConfig" in given:
        _set(found, "asyncInvoke", _dead_letters(found.get("asyncInvoke", {}), given["DeadLetterConfig"], scope))
    if "LoggingConfig" in given:
        _set(found, "logging", _logging(found.get("logging", {}), given["LoggingConfig"], name))
    if "ImageConfig" in given:
        if "image" not in found:
            raise invalid("ImageConfig: the function is no image (PackageType)")
        found["image"] = _image(found["image"], given["ImageConfig"])
    return found


def _set(document: Document, field: str, value: Any) -> None:
    """What is empty is not said."""
    if value in ("", {}, []):
        document.pop(field, None)
    else:
        document[field] = value


def coded(document: Document, *, package: bool) -> Document:
    """With a deployment package as all of its code: unpacked, or as a file of that name."""
    if "image" in document:
        raise invalid("ZipFile: the function is an image (PackageType): give its ImageUri")
    found = {field: value for field, value in document.items() if field not in ("package", "assets")}
    return {**found, "package": PACKAGE} if package else found


def imaged(document: Document, uri: str) -> Document:
    """With another image."""
    if "image" not in document:
        raise invalid("ImageUri: the function is no image (PackageType): give its ZipFile")
    return {**document, "image": {**document["image"], "uri": uri}}


def role(arn: str, scope: Scope) -> str:
    """The name of a role. Raises ServiceError."""
    return _own(arn, "Role", scope.arn("arn:aws:iam::{account}:role/{name}", ""), "roles/NAME.json")


def layer(arn: str, scope: Scope) -> str:
    """The name of a layer. Raises ServiceError."""
    before = scope.arn("arn:aws:lambda:{region}:{account}:layer:{name}", "")
    return _own(arn, "Layers", before, "layers/NAME/layer.json, which is the one version that it has")


def _own(arn: str, parameter: str, before: str, file: str) -> str:
    """The name in an ARN of this project. Raises ServiceError."""
    name = arn.removeprefix(before)
    if name == arn or re.fullmatch(r"[A-Za-z0-9_.-]+", name) is None:
        raise invalid(f"{parameter}: {arn} is none of this project: it has to be {before}NAME, for {file}")
    return name


def architectures(given: list[str]) -> None:
    """Raises ServiceError for those that this machine has not."""
    own = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
    if given != [own]:
        raise invalid(f"Architectures: functions run on this machine, which is {own}: leave it out")


def _dead_letters(known: Document, given: Mapping[str, str], scope: Scope) -> Document:
    found = {field: value for field, value in known.items() if field != "onFailure"}
    arn = given.get("TargetArn", "")
    if not arn:
        return found
    before = scope.arn("arn:aws:lambda:{region}:{account}:function:{name}", "")
    return {**found, "onFailure": {"function": _own(arn, "DeadLetterConfig", before, "functions/NAME/function.json")}}


def _logging(known: Document, given: Mapping[str, str], name: str) -> Document:
    harmless = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}", "SystemLogLevel": "INFO"}
    for member, value in harmless.items():
        if given.get(member, value) != value:
            raise invalid(f"LoggingConfig: {member} is always {value} here: leave it out")
    found = {field: value for field, value in known.items() if field != "applicationLogLevel"}
    level = given.get("ApplicationLogLevel")
    return found if level is None else {**found, "applicationLogLevel": level}


def _image(known: Document, given: Mapping[str, Any]) -> Document:
    found = dict(known)
    for member, field in (
        ("EntryPoint", "entryPoint"),
        ("Command", "command"),
        ("WorkingDirectory", "workingDirectory"),
    ):
        _set(found, field, given.get(member, ""))
    return found


def told(error: InvalidError, file: str) -> ServiceError:
    """What is wrong with `file` as it would be, by the parameters that it came from."""
    return invalid("; ".join(_sentence(problem, file) for problem in error.problems))


def _sentence(problem: Problem, file: str) -> str:
    field = re.match(r"\$\.([A-Za-z]+)", problem.path) if problem.file == file else None
    remedy = f" ({problem.remedy})" if problem.remedy else ""
    if field is None:
        return f"{problem}{remedy}"
    parameter = _FIELDS.get(field[1], field[1][0].upper() + field[1][1:])
    return f"{parameter}: {problem.message}{remedy}"

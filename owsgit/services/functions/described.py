"""What Lambda's API tells of a function: FunctionConfiguration, from its file, its files and how it runs here.

https://docs.aws.amazon.com/lambda/latest/api/API_FunctionConfiguration.html
"""

import base64
import hashlib
import platform
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from owsgit.model.resource import Resource
from owsgit.model.service import Site
from owsgit.services.functions.spec import FunctionSpec

MEASURED_MAX = 1000
"""Versions whose code's size and digest are remembered."""

REASON_CHARACTERS_MAX = 1024


@dataclass(frozen=True)
class Standing:
    """How a function stands on this node."""

    runs: bool  # some version of it
    current: bool  # that is the version at the head
    problem: str = ""  # why not
    since: float = 0.0  # when this node took the version on, in seconds since 1970

    def members(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.runs:
            found["State"] = "Active"
        else:
            state = ("Failed", "InvalidConfiguration") if self.problem else ("Pending", "Creating")
            found["State"], found["StateReasonCode"] = state
            found["StateReason"] = self.problem[:REASON_CHARACTERS_MAX] or "The function is being created."
        if self.current:
            found["LastUpdateStatus"] = "Successful"
        elif self.problem:
            found["LastUpdateStatus"], found["LastUpdateStatusReasonCode"] = "Failed", "InvalidConfiguration"
            found["LastUpdateStatusReason"] = self.problem[:REASON_CHARACTERS_MAX]
        else:
            found["LastUpdateStatus"] = "InProgress"
        return found


@dataclass(frozen=True)
class Code:
    """Of a deployment package: its size in bytes and its digest, in base64 as AWS shows it."""

    size: int
    sha256: str


class Descriptions:
    """Tells what functions are."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._measured: OrderedDict[str, Code] = OrderedDict()

    def configuration(self, resource: Resource, standing: Standing, version: str, qualifier: str) -> dict[str, Any]:
        """Reads the function's files when it is asked for the first time: not for the event loop.

        `version` is LATEST or a commit; `qualifier` is what the caller named it by.
        """
        spec = resource.spec
        assert isinstance(spec, FunctionSpec)
        scope = self._site.scope()
        arn, code = resource.arn(scope), self._code(resource, spec)
        modified = datetime.fromtimestamp(standing.since, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
        log = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{resource.name}"}
        if spec.logging.application_log_level is not None:
            log["ApplicationLogLevel"] = spec.logging.application_log_level
        return {
            "FunctionName": resource.name,
            "FunctionArn": f"{arn}:{qualifier}" if qualifier else arn,
            "Description": spec.description or "",
            "CodeSize": code.size,
            "CodeSha256": code.sha256,
            "Timeout": spec.timeout,
            "MemorySize": spec.memory_size,
            "LastModified": modified,
            "Version": version,
            "RevisionId": str(uuid.UUID(hex=resource.version[:32])),
            "TracingConfig": {"Mode": "PassThrough"},
            "Architectures": ["arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"],
            "EphemeralStorage": {"Size": spec.ephemeral_storage},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": log,
            **self._package(spec),
            **self._optional(spec),
            **standing.members(),
        }

    @staticmethod
    def _package(spec: FunctionSpec) -> dict[str, Any]:
        if spec.image is None:
            return {"PackageType": "Zip", "Runtime": spec.runtime, "Handler": spec.handler}
        image = {
            "EntryPoint": list(spec.image.entry_point),
            "Command": list(spec.image.command),
            "WorkingDirectory": spec.image.working_directory,
        }
        given = {name: value for name, value in image.items() if value}
        return {"PackageType": "Image", **({"ImageConfigResponse": {"ImageConfig": given}} if given else {})}

    def _optional(self, spec: FunctionSpec) -> dict[str, Any]:
        """Members that not every function has. Secrets are not among the variables: they are told to nobody here."""
        scope, found = self._site.scope(), dict[str, Any]()
        if spec.environment:
            found["Environment"] = {"Variables": dict(spec.environment)}
        if spec.role is not None:
            found["Role"] = scope.arn("arn:aws:iam::{account}:role/{name}", spec.role)
        if spec.layers:
            arns = [scope.arn("arn:aws:lambda:{region}:{account}:layer:{name}", layer) for layer in spec.layers]
            found["Layers"] = [{"Arn": arn} for arn in arns]
        if spec.async_invoke.on_failure is not None:
            arn = scope.arn("arn:aws:lambda:{region}:{account}:function:{name}", spec.async_invoke.on_failure.function)
            found["DeadLetterConfig"] = {"TargetArn": arn}
        return found

    @staticmethod
    def code(spec: FunctionSpec) -> Mapping[str, Any]:
        """FunctionCodeLocation. Code lies in the ledger, whose readers clone it: no address has it."""
        if spec.image is None:
            return {"RepositoryType": "Git"}
        return {"RepositoryType": "ECR", "ImageUri": spec.image.uri, "ResolvedImageUri": spec.image.uri}

    def _code(self, resource: Resource, spec: FunctionSpec) -> Code:
        found = self._measured.get(resource.version)
        if found is None:
            found = self._measured[resource.version] = self._measure(resource, spec)
            while len(self._measured) > MEASURED_MAX:
                self._measured.popitem(last=False)
        return found

    def _measure(self, resource: Resource, spec: FunctionSpec) -> Code:
        """Of an image, and of a deployment package, as AWS; else of all files together."""
        if spec.image is not None:
            return Code(0, spec.image.uri.rpartition("sha256:")[2])
        if spec.package in spec.assets:
            return Code(0, _base64(bytes.fromhex(spec.assets[spec.package].sha256)))
        assert resource.tree is not None
        files = [file for file in self._site.read_files(resource.tree) if file.path != "function.json"]
        size = sum(len(file.content) for file in files)
        packages = [file for file in files if file.path == spec.package]
        if packages:
            return Code(size, _base64(hashlib.sha256(packages[0].content).digest()))
        digest = hashlib.sha256()
        for file in sorted(files, key=lambda file: file.path):
            inner = hashlib.sha256(file.content).hexdigest()
            digest.update(f"{inner} {int(file.executable)} {file.path}\n".encode())
        for path, asset in sorted(spec.assets.items()):
            digest.update(f"{asset.sha256} 0 {path}\n".encode())
        return Code(size, _base64(digest.digest()))


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()

"""Operations of Lambda's API that change functions, where there is a working tree: `owsgit up`. They write the
function's folder there, and answer as Lambda does. On nodes, LambdaApi answers them with the file to commit.
"""

import asyncio
import contextlib
import os
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from botocore import xform_name

from owsgit.aws.api import Caller, Need, ServiceError
from owsgit.model.errors import InvalidError
from owsgit.model.resource import Resource
from owsgit.model.service import Edit, NotAppliedError, Site
from owsgit.runtime import archives, node_packages, python_packages
from owsgit.services.functions import KIND, access, changing
from owsgit.services.functions.aliases import LATEST
from owsgit.services.functions.changing import Document
from owsgit.services.functions.described import Descriptions, Standing
from owsgit.services.functions.naming import Named, invalid, not_found
from owsgit.services.functions.spec import FunctionSpec, family

Output = dict[str, Any]
Change = Callable[[Any], Document]

CREATION = changing.CONFIGURATION | {"FunctionName", "Code", "PackageType", "Architectures"}
CODE = frozenset({"FunctionName", "ZipFile", "ImageUri", "Architectures", "RevisionId"})
CONFIGURATION = changing.CONFIGURATION | {"FunctionName", "RevisionId"}
"""Parameters that the operations take."""

OPERATIONS = {
    "CreateFunction": CREATION,
    "UpdateFunctionCode": CODE,
    "UpdateFunctionConfiguration": CONFIGURATION,
    "DeleteFunction": frozenset({"FunctionName", "Qualifier"}),
}


class Functions(Protocol):
    """What the API asks of the handler of functions."""

    def resource(self, name: str) -> Resource | None:
        """As it is wanted at the head; it need not run."""
        ...

    def standing(self, name: str) -> Standing: ...


class ControlApi:
    """The operations."""

    service = "lambda"

    def __init__(self, site: Site, functions: Functions, edit: Edit) -> None:
        self._site, self._functions, self._edit = site, functions, edit
        self._described = Descriptions(site)

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> Iterable[Need]:
        changing.refuse(parameters, OPERATIONS[operation])
        named, scope = self._named(parameters["FunctionName"]), self._site.scope()
        yield Need(f"lambda:{operation}", named.arn, {access.FUNCTION_ARN: named.arn})
        if "Role" in parameters:
            arn = scope.arn("arn:aws:iam::{account}:role/{name}", changing.role(parameters["Role"], scope))
            yield Need("iam:PassRole", arn, {"iam:PassedToService": KIND.principal})
        for given in parameters.get("Layers", []):
            name = changing.layer(given, scope)
            yield Need("lambda:GetLayerVersion", scope.arn("arn:aws:lambda:{region}:{account}:layer:{name}", name))

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        return None

    async def create_function(self, caller: Caller, **parameters: Any) -> Output:
        given = _by_name(CREATION, parameters)
        _check_code(given["Code"])
        if "Architectures" in given:
            changing.architectures(given["Architectures"])
        named = self._named(given["FunctionName"])
        document = changing.created(given, self._site.scope(), named.name)

        def change(before: Any) -> Document:
            if before is not None:
                raise _conflict(f"Function already exist: {named.name}")
            return document

        if "ImageUri" in given["Code"]:
            await self._write(named, change)
        else:
            await self._write_code(named, change, given["Code"]["ZipFile"], document["runtime"])
        return await self._answered(named)

    async def update_function_code(self, caller: Caller, **parameters: Any) -> Output:
        given = _by_name(CODE, parameters)
        if "Architectures" in given:
            changing.architectures(given["Architectures"])
        named = self._named(given["FunctionName"])
        spec = self._existing(named).spec
        assert isinstance(spec, FunctionSpec)
        if ("ZipFile" in given) == ("ImageUri" in given):
            raise invalid("Please provide a source for function code: ZipFile or ImageUri.")
        if "ImageUri" in given:
            change = self._changed(named, given, lambda document: changing.imaged(document, given["ImageUri"]))
            await self._write(named, change)
        else:
            change = self._changed(named, given, lambda document: document)
            await self._write_code(named, change, given["ZipFile"], spec.runtime)
        return await self._answered(named)

    async def update_function_configuration(self, caller: Caller, **parameters: Any) -> Output:
        given = _by_name(CONFIGURATION, parameters)
        named, scope = self._named(given["FunctionName"]), self._site.scope()
        self._existing(named)
        change = self._changed(named, given, lambda document: changing.configured(document, given, scope, named.name))
        await self._write(named, change)
        return await self._answered(named)

    async def delete_function(self, caller: Caller, *, function_name: str, qualifier: str | None = None) -> Output:
        """The function as a whole."""
        if qualifier is not None:
            raise invalid("Qualifier: a version is a commit, which is never deleted: leave it out")
        named = self._named(function_name)
        self._existing(named)
        try:
            await self._edit(KIND.name, named.name, lambda _: None)
        except InvalidError as error:  # something names it
            raise _conflict(str(error)) from None
        return {"StatusCode": 204}

    def _named(self, function_name: str) -> Named:
        """Raises ServiceError."""
        named = Named.parse(function_name, None, self._site.scope())
        if named.qualifier not in ("", LATEST):
            raise invalid(f"FunctionName: a version is a commit, which never changes: leave :{named.qualifier} out")
        if named.scope.account != self._site.scope().account:
            raise not_found(f"Function not found: {named.arn}")
        return named

    def _existing(self, named: Named) -> Resource:
        """Raises ServiceError."""
        resource = self._functions.resource(named.name)
        if resource is None:
            raise not_found(f"Function not found: {named.arn}")
        return resource

    def _changed(self, named: Named, given: Mapping[str, Any], change: Change) -> Change:
        """A change of what is there, and is as the caller says that it is."""

        def changed(before: Any) -> Document:
            revision = str(uuid.UUID(hex=self._existing(named).version[:32]))
            if before is None:
                raise not_found(f"Function not found: {named.arn}")
            if given.get("RevisionId", revision) != revision:
                raise ServiceError(
                    "PreconditionFailedException",
                    "The Revision Id provided does not match the latest Revision Id. Call the "
                    "GetFunction/GetAlias API to retrieve the latest Revision Id",
                    status=412,
                    fields={"Type": "User"},
                )
            return change(before)

        return changed

    async def _write(self, named: Named, change: Change, files: Path | None = None) -> None:
        """Raises ServiceError."""
        try:
            await self._try(named, change, files)
        except InvalidError as error:
            raise changing.told(error, KIND.file(named.name)) from None

    async def _try(self, named: Named, change: Change, files: Path | None) -> None:
        """What cannot run is written all the same: its state says so, as with Lambda. Raises InvalidError."""
        try:
            await self._edit(KIND.name, named.name, change, files)
        except NotAppliedError:
            if self._functions.resource(named.name) is None:
                raise

    async def _write_code(self, named: Named, change: Change, data: bytes, runtime: str) -> None:
        """Unpacked, as people read it; as it came, if the ledger does not take that, or it would be built anew here.

        Raises ServiceError.
        """
        with tempfile.TemporaryDirectory(prefix="owsgit-") as scratch:
            unpacked, zipped = Path(scratch, "unpacked"), Path(scratch, "zipped")
            if await asyncio.to_thread(_lay_out, data, unpacked, zipped, runtime):
                with contextlib.suppress(InvalidError):  # if that is of the file, it is told below
                    await self._try(named, lambda before: changing.coded(change(before), package=False), unpacked)
                    return
            await self._write(named, lambda before: changing.coded(change(before), package=True), zipped)

    async def _answered(self, named: Named) -> Output:
        """What the function is by then."""
        resource = self._existing(named)
        standing = self._functions.standing(named.name)
        return await asyncio.to_thread(self._described.configuration, resource, standing, LATEST, "")


def _by_name(known: Iterable[str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by AWS's names."""
    names = {xform_name(name): name for name in known}
    return {names[name]: value for name, value in parameters.items() if name in names}


def _check_code(given: Mapping[str, Any]) -> None:
    """Raises ServiceError."""
    changing.refuse(given, frozenset({"ZipFile", "ImageUri"}))
    if {"ImageUri", "ZipFile"} <= set(given):
        raise invalid("Code: give either a ZipFile or an ImageUri")


def _lay_out(data: bytes, unpacked: Path, zipped: Path, runtime: str) -> bool:
    """A deployment package, unpacked and as it came. Whether it may lie unpacked: the ledger takes no links, git would
    heed files of its own, and what asks for packages would get them here, while on Lambda it has all that it needs.

    Raises ServiceError.
    """
    zipped.mkdir()
    unpacked.mkdir()
    archive = zipped / changing.PACKAGE
    archive.write_bytes(data)
    try:
        archives.unpack(archive, unpacked, archives.Room())
    except InvalidError as error:
        raise invalid(
            "Could not unzip uploaded file. Please check your file, then try to upload again. "
            f"({error.problems[0].message})"
        ) from None
    for folder, folders, files in os.walk(unpacked):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() or (path.name.lower().startswith(".git") and path.name != ".gitignore"):
                return False
            path.chmod(path.stat().st_mode | stat.S_IWUSR)  # people go on with it
    return not _asks_for_packages(unpacked, family(runtime))


def _asks_for_packages(folder: Path, of: str) -> bool:
    if of == "python":
        return (folder / python_packages.FILE).exists()
    try:
        return of == "nodejs" and node_packages.asks(folder)
    except InvalidError:
        return True


def _conflict(message: str) -> ServiceError:
    return ServiceError("ResourceConflictException", message, status=409, fields={"Type": "User"})
